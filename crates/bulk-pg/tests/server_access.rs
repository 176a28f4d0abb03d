//! Which roles reach beyond their database.

mod support;

use bulk_pg::{Session, server_access};
use support::Bench;

/// What is found of this role: name, whether it is the own one, whether it is a superuser.
async fn found(bench: &Bench, role: &str) -> Option<(String, bool, bool)> {
    let session = Session::connect(&bench.database.url_for(role, "secret")).await.unwrap();
    let access = server_access(&session).await.unwrap();
    access.map(|access| (access.role, access.is_own, access.is_superuser))
}

#[tokio::test]
async fn roles_that_reach_beyond_the_database_are_found() {
    let bench = Bench::new("access", "");
    let name = |role: &str| format!("{}_{role}", bench.database.name());
    let roles = ["plain", "super", "member", "program", "creator"].map(name);
    let [plain, superuser, member, program, creator] = &roles;
    for role in &roles {
        bench.psql(&format!("CREATE ROLE {role} LOGIN NOINHERIT PASSWORD 'secret'"));
    }
    bench.psql(&format!("ALTER ROLE {superuser} SUPERUSER; GRANT {superuser} TO {member}"));
    bench.psql(&format!("GRANT pg_execute_server_program TO {program}; ALTER ROLE {creator} CREATEROLE"));
    bench.psql(&format!("ALTER ROLE {superuser} SET role = '{plain}'"));

    assert_eq!(found(&bench, plain).await, None);
    // The role that it has taken on is a plain one, and any statement takes it off again.
    assert_eq!(found(&bench, superuser).await, Some((superuser.clone(), true, true)));
    assert_eq!(found(&bench, member).await, Some((superuser.clone(), false, true)));
    assert_eq!(found(&bench, program).await, Some(("pg_execute_server_program".to_owned(), false, false)));
    let is_old = bench.psql("SELECT current_setting('server_version_num')::int < 160000") == "t";
    assert_eq!(found(&bench, creator).await, is_old.then(|| (creator.clone(), true, false)));

    bench.psql(&format!("DROP ROLE {}", roles.join(", ")));
}
