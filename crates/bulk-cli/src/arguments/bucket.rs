use clap::Args;
use clap::builder::BoolishValueParser;

/// Where a bucket is and who asks.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "The bucket")]
pub(crate) struct BucketArguments {
    /// Base URL of an S3 server that is not AWS.
    #[arg(long, value_name = "URL", env = "BULK_ENDPOINT")]
    pub(crate) endpoint: Option<String>,
    /// Region of the bucket.
    #[arg(long, env = "BULK_REGION")]
    pub(crate) region: Option<String>,
    /// Do not sign requests, as public buckets want it. Without it they are signed with the credentials of the usual AWS
    /// variables, a web identity, the container or the instance, unless the data set says that its bucket is public.
    /// Profiles of ~/.aws are not read: `aws configure export-credentials --format env` prints one as variables.
    #[arg(long, env = "BULK_ANONYMOUS", value_parser = BoolishValueParser::new())]
    pub(crate) anonymous: bool,
    /// Pay for the requests, as buckets want it whose owners do not.
    #[arg(long, env = "BULK_REQUESTER_PAYS", value_parser = BoolishValueParser::new())]
    pub(crate) requester_pays: bool,
}
