//! `gantry node shutdown`: a node that ends its pods in order, for machines without logind.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use node::NodeControl;

/// What can be done with the node of this machine.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// End all pods in the order of their priority, and take no others: the machine goes down
    Shutdown(ShutdownArgs),
}

/// Settings of `node shutdown`.
#[derive(Debug, Args)]
pub struct ShutdownArgs {
    /// The machine stays up after all: take pods again
    #[arg(long)]
    pub cancel: bool,
    /// Where sockets and network namespaces are kept
    #[arg(long, env = "GANTRY_RUN_DIR", value_name = "DIR", default_value = "/run/gantry")]
    pub run_dir: PathBuf,
}

/// A node that does not do what it is asked to.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    #[error("no node runs here: nobody listens at {path}; name its --run-dir")]
    Nobody { path: PathBuf },
    #[error("asking the node takes root; run it again with sudo")]
    Root,
    #[error("the node does not do it: {0}")]
    Refused(std::io::Error),
}

/// Asks the node, and returns when it has done it.
pub fn run(NodeCommand::Shutdown(args): &NodeCommand) -> Result<(), ShutdownError> {
    use std::io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    let path = args.run_dir.join("node.sock");
    let what = if args.cancel { NodeControl::Cancel } else { NodeControl::Shutdown };
    node::ask(&path, what).map_err(|error| match error.kind() {
        NotFound | ConnectionRefused => ShutdownError::Nobody { path },
        PermissionDenied => ShutdownError::Root,
        _ => ShutdownError::Refused(error),
    })?;
    println!("{}", if args.cancel { "The node takes pods again." } else { "The node's pods have ended." });
    Ok(())
}
