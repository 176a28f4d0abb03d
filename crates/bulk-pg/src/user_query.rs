//! Statements of the user's, to stand in a subselect.

use crate::Error;
use crate::statement::lexer;

/// The statement without what follows it, to be put between parentheses. A comment at its end is followed by a line end.
pub(crate) fn subselect(query: &str, of: &str) -> Result<String, Error> {
    let refused = |what: &str| Error::Options { what: format!("the query of {of} {what}") };
    if query.contains('\0') {
        return Err(refused("holds a NUL character"));
    }
    let tokens = lexer::tokens(query).map_err(|error| refused(&format!("cannot be read: {error}")))?;
    let is_end = |token: &lexer::Token| token.is_symbol(query, ";");
    let count = tokens.iter().rposition(|token| !is_end(token)).map_or(0, |last| last + 1);
    let tokens = &tokens[..count];
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { return Err(refused("is empty")) };
    if tokens.iter().any(is_end) {
        return Err(refused("is more than one statement"));
    }
    let begins = ["select", "with", "values", "table"].iter().any(|word| first.is_word(query, word));
    if !begins && !first.is_symbol(query, "(") {
        return Err(refused("does not begin with SELECT, WITH, VALUES or TABLE"));
    }
    let mut depth = 0_i64;
    for token in tokens {
        depth += i64::from(token.is_symbol(query, "(")) - i64::from(token.is_symbol(query, ")"));
        if depth < 0 {
            break;
        }
    }
    if depth != 0 {
        return Err(refused("has a parenthesis without its counterpart"));
    }
    Ok(query[first.start..last.end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::subselect;

    #[test]
    fn what_follows_a_statement_is_left_out() {
        for (query, wanted) in [
            ("SELECT 1", "SELECT 1"),
            ("  SELECT 1 ;; -- the end", "SELECT 1"),
            ("-- first\nselect ';' AS a /* ; */\n;\n/* last */", "select ';' AS a"),
            ("WITH a AS (SELECT ')') TABLE a;", "WITH a AS (SELECT ')') TABLE a"),
            ("(SELECT 1) UNION VALUES (2)", "(SELECT 1) UNION VALUES (2)"),
            ("SELECT 1 -- ;\n, 2", "SELECT 1 -- ;\n, 2"),
        ] {
            assert_eq!(subselect(query, "t").unwrap(), wanted);
        }
    }

    #[test]
    fn what_is_no_single_statement_is_refused() {
        for (query, why) in [
            ("", "is empty"),
            (" ; -- nothing", "is empty"),
            ("SELECT 1; SELECT 2", "is more than one statement"),
            ("DELETE FROM t", "does not begin with SELECT, WITH, VALUES or TABLE"),
            ("SELECT 1) UNION (SELECT 2", "has a parenthesis without its counterpart"),
            ("SELECT (1", "has a parenthesis without its counterpart"),
            ("SELECT 'a", "cannot be read: line 1: the script ends within the quoted string that begins here"),
            ("SELECT 1\0", "holds a NUL character"),
        ] {
            assert_eq!(subselect(query, "t").unwrap_err().to_string(), format!("the query of t {why}"));
        }
    }
}
