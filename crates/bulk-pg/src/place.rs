//! Where an error is, by the server's word.

/// A line of COPY, from 1, and perhaps a column, as the server names them in the context of an error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) column: Option<Box<str>>,
}

impl Place {
    /// Out of `COPY table, line 7, column x: "…"`, as `CopyFromErrorCallback` in
    /// `src/backend/commands/copyfrom.c` writes it, in a context of several lines. Others of these count lines of their
    /// own: of a JSON text, of a function.
    pub(crate) fn find(context: &str, table: &str) -> Option<Self> {
        let start = format!("COPY {table}, line ");
        let at = context.match_indices(&start).find(|(at, _)| *at == 0 || context[..*at].ends_with('\n'))?.0;
        let rest = &context[at + start.len()..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let line = rest[..digits].parse().ok().filter(|line| *line > 0)?;
        // In text a value follows in quotes, or the word null, and a name may hold either sign; in binary nothing does.
        let column = rest[digits..].strip_prefix(", column ").map(|rest| {
            let rest = &rest[..rest.find('\n').unwrap_or(rest.len())];
            let end = rest.find(": \"").or_else(|| rest.find(": null input"));
            rest[..end.unwrap_or(rest.len())].into()
        });
        Some(Self { line, column })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_word_for_a_place_is_read() {
        let find = |context| Place::find(context, "t, line 5");
        let place = |line, column: Option<&str>| Some(Place { line, column: column.map(Into::into) });
        assert_eq!(find("COPY t, line 5, line 7, column id: \"x\""), place(7, Some("id")));
        assert_eq!(find("COPY t, line 5, line 7, column a: b: null input"), place(7, Some("a: b")));
        assert_eq!(find("COPY t, line 5, line 7, column a b"), place(7, Some("a b")));
        assert_eq!(find("COPY t, line 5, line 7, column a b\nSQL: \"x\""), place(7, Some("a b")));
        assert_eq!(find("COPY t, line 5, line 17: \"1\t2\""), place(17, None));
        assert_eq!(find("COPY t, line 5, line 3"), place(3, None));
        assert_eq!(find("PL/pgSQL function f() line 2 at RAISE\nCOPY t, line 5, line 3: \"\""), place(3, None));
        let json = "JSON data, line 1: {\"a\": x...\nCOPY t, line 5, line 4, column data: \"{\"a\": x}\"";
        assert_eq!(find(json), place(4, Some("data")));
        assert_eq!(
            find("JSON data, line 1: {\"a\": x...\nCOPY t, line 5, line 4, column data"),
            place(4, Some("data"))
        );
        assert_eq!(find("JSON data, line 1: ..."), None);
        assert_eq!(find("COPY t, line 7"), None);
        assert_eq!(find("as in COPY t, line 5, line 7"), None);
    }
}
