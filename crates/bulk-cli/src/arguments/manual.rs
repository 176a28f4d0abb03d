//! What `bulk completions` and `bulk man` are asked for.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bulk completions bash > ~/.local/share/bash-completion/completions/bulk
  bulk completions zsh > ~/.zfunc/_bulk        # a folder of fpath
  bulk completions fish > ~/.config/fish/completions/bulk.fish")]
pub(crate) struct CompletionsArguments {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  All pages, to where man finds them:
    bulk man --out ~/.local/share/man/man1
  One of them:
    bulk man mirror | man -l -")]
pub(crate) struct ManArguments {
    /// The command whose page is printed, such as `mirror` or `known import`. Default: that of the program.
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    pub(crate) command: Vec<String>,
    /// Write the pages of all commands to this folder, which is made if need be.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}
