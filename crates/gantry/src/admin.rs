//! Speaking to the cluster of this machine as its administrator.

use std::path::PathBuf;

use client::{Identity, Server, Transport, TransportError, kube};

use crate::config::ServerArgs;

/// Credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("cannot read {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// Where this machine reaches the API.
pub fn url(args: &ServerArgs) -> String {
    let host = if args.bind_address.is_unspecified() {
        "127.0.0.1".to_owned()
    } else {
        args.bind_address.to_string()
    };
    format!("https://{host}:{}", args.https_port)
}

/// A client with the rights of the administrator.
pub fn client(args: &ServerArgs) -> Result<kube::Client, AdminError> {
    let read = |name: &str| {
        let path = args.data_dir.join("pki").join(name);
        std::fs::read_to_string(&path).map_err(|source| AdminError::File { path, source })
    };
    let identity = Identity::Certificate { certificate: read("admin.crt")?, key: read("admin.key")? };
    Ok(Transport::tls(&Server { url: url(args), ca_pem: read("ca.crt")?, identity })?.client())
}
