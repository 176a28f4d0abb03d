use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What RFC 3986 calls unreserved stands for itself.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The URL of a database of an embedded server.
pub(super) fn of_embedded(user: &str, password: Option<&str>, port: u16) -> String {
    let password = password.map(|password| format!(":{}", encoded(password))).unwrap_or_default();
    format!("postgresql://{user}{password}@127.0.0.1:{port}/postgres")
}

/// The same server and user as `url`, another database. Takes both forms of a connection string: URL, and `name=value`
/// pairs, of which the last of a name counts.
pub(super) fn with_database(url: &str, database: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        let quoted = database.replace('\\', r"\\").replace('\'', r"\'");
        return format!("{url} dbname='{quoted}'");
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = place.split('/').next().unwrap_or_default();
    let parameters: Vec<&str> =
        query.split('&').filter(|parameter| !parameter.is_empty() && !parameter.starts_with("dbname=")).collect();
    let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
    format!("{scheme}://{authority}/{}{query}", encoded(database))
}

/// The same server and database as `url`, for another role, in both forms.
pub(super) fn with_role(url: &str, role: &str, password: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        let quoted = |text: &str| text.replace('\\', r"\\").replace('\'', r"\'");
        return format!("{url} user='{}' password='{}'", quoted(role), quoted(password));
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_of_role = |parameter: &str| parameter.starts_with("user=") || parameter.starts_with("password=");
    let parameters: Vec<&str> =
        query.split('&').filter(|parameter| !parameter.is_empty() && !is_of_role(parameter)).collect();
    let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
    let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{}:{}@{host}{path}{query}", encoded(role), encoded(password))
}

/// Takes the password out of a URL, as everyone on the machine can read the arguments of a program.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, place) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{host}{place}")
        }
        None => url.to_owned(),
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use tokio_postgres::Config;

    use super::{of_embedded, with_database, with_role, without_password};

    #[test]
    fn the_driver_reads_back_what_was_written() {
        let url = of_embedded("postgres", Some("a b/c:d@e?f%g'é"), 5433);
        let config: Config = with_database(&url, "x y/\"z\"?é%").parse().unwrap();
        assert_eq!(config.get_user(), Some("postgres"));
        assert_eq!(config.get_password(), Some("a b/c:d@e?f%g'é".as_bytes()));
        assert_eq!(config.get_ports(), [5433]);
        assert_eq!(config.get_dbname(), Some("x y/\"z\"?é%"));

        let config: Config = with_database("host=/run user=u dbname=old", r"it's \ new").parse().unwrap();
        assert_eq!(config.get_dbname(), Some(r"it's \ new"));
        assert_eq!(config.get_user(), Some("u"));
    }

    #[test]
    fn only_the_database_is_replaced() {
        let new = |url| with_database(url, "new");
        assert_eq!(new("postgresql://u:p@h:1/old"), "postgresql://u:p@h:1/new");
        assert_eq!(new("postgres://h"), "postgres://h/new");
        assert_eq!(new("postgres://h?sslmode=disable"), "postgres://h/new?sslmode=disable");
        assert_eq!(new("postgres://a:1,b:2/old?a=b&dbname=c&d=e"), "postgres://a:1,b:2/new?a=b&d=e");
        assert_eq!(new("postgres:///old?host=/run"), "postgres:///new?host=/run");
    }

    #[test]
    fn only_the_role_is_replaced() {
        let new = |url| with_role(url, "r@", "p:/");
        assert_eq!(new("postgresql://u:p@h:1/d"), "postgresql://r%40:p%3A%2F@h:1/d");
        assert_eq!(new("postgres://h/d@e?a=b"), "postgres://r%40:p%3A%2F@h/d@e?a=b");
        assert_eq!(new("postgres:///d?user=u&host=/run&password=p"), "postgres://r%40:p%3A%2F@/d?host=/run");
        let config: Config = with_role("host=/run user=u dbname=d", r"it's \ r", "p").parse().unwrap();
        assert_eq!((config.get_user(), config.get_dbname()), (Some(r"it's \ r"), Some("d")));
        assert_eq!(config.get_password(), Some(&b"p"[..]));
    }

    #[test]
    fn only_the_password_is_left_out() {
        assert_eq!(without_password("postgresql://u:p:q@h:1/d?a=b"), "postgresql://u@h:1/d?a=b");
        assert_eq!(without_password("postgresql://u@h:1/d"), "postgresql://u@h:1/d");
        assert_eq!(without_password("postgresql://h:1/d@e"), "postgresql://h:1/d@e");
        assert_eq!(without_password("host=h"), "host=h");
    }
}
