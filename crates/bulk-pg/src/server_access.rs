use crate::{Error, Session};

/// By which role the SQL of a session reaches beyond its database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerAccess {
    /// The role: the one that logged in, or another that it may become.
    pub role: String,
    /// Whether it is the one that logged in.
    pub is_own: bool,
    /// Whether it is a superuser. Else it may run programs on the server, read or write its files, or, before PostgreSQL
    /// 16, give itself these rights (`CREATEROLE`).
    pub is_superuser: bool,
}

/// Whether SQL that is run in this session, such as a function of a schema file, can reach beyond the database; `None` if
/// not. What counts is the role that logged in, and all that it is a member of: `SET ROLE` and `RESET ROLE` need no more.
///
/// The roles are those of PostgreSQL's manual, chapter "Predefined Roles": `pg_execute_server_program`,
/// `pg_read_server_files` and `pg_write_server_files`. Functions that a superuser has made for others are not looked at.
///
/// # Errors
///
/// [`Error::Database`].
pub async fn server_access(session: &Session) -> Result<Option<ServerAccess>, Error> {
    let sql = "
        SELECT r.rolname::text, r.rolname = session_user, r.rolsuper
        FROM pg_catalog.pg_roles r
        WHERE (r.rolsuper
               OR r.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')
               OR r.rolcreaterole AND pg_catalog.current_setting('server_version_num')::int < 160000)
          AND pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER')
        ORDER BY r.rolsuper DESC, 2 DESC, 1
        LIMIT 1";
    let row = session.client().query_opt(sql, &[]).await.map_err(Error::database("look at the role's rights"))?;
    Ok(row.map(|row| ServerAccess { role: row.get(0), is_own: row.get(1), is_superuser: row.get(2) }))
}
