use bulk_pg::Session;
use clap::Args;

use crate::exit::Failure;

/// Where the database is, and how it is set up.
#[derive(Clone, Debug, Args)]
pub(crate) struct DatabaseArguments {
    #[command(flatten)]
    pub(crate) target: DatabaseUrl,
    /// Let the server compress wide values as it is set up to, mostly by pglz. Default: by lz4, where the server has it and
    /// the column has no method of its own; that takes it a fraction of the CPU, and some more disk.
    #[arg(long)]
    no_lz4: bool,
}

impl DatabaseArguments {
    /// A session with the database, set up as the flags say.
    pub(crate) async fn connect(&self) -> Result<Session, Failure> {
        let mut session = Session::connect(self.target.url()?).await?;
        if self.no_lz4 {
            session.reset_compression().await?;
        }
        Ok(session)
    }
}

/// Where the database is.
#[derive(Clone, Debug, Args)]
pub(crate) struct DatabaseUrl {
    /// The database, which has to be there: postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full, or libpq's
    /// key=value form. Where others see the command line, a password is better in BULK_DB or ~/.pgpass. What it leaves
    /// open is as psql has it: PGHOST and the other variables, service and password files. Default: all of it.
    #[arg(long, value_name = "URL", env = "BULK_DB", hide_env_values = true)]
    db: Option<String>,
}

impl DatabaseUrl {
    /// The variables of libpq's that say which database is meant.
    const VARIABLES: [&str; 4] = ["PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE"];

    /// The connection string, which is empty where variables say it all. `None` if nothing says it.
    pub(crate) fn given(&self) -> Option<&str> {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        self.db.as_deref().filter(|db| !db.is_empty()).or_else(|| Self::VARIABLES.into_iter().any(is_set).then_some(""))
    }

    /// As [`given`](Self::given), of a command that cannot do without.
    pub(crate) fn url(&self) -> Result<&str, Failure> {
        self.given().ok_or_else(|| {
            Failure::usage(
                "which database is not said: give --db URL or BULK_DB, or PGDATABASE and its like; see --help",
            )
        })
    }
}
