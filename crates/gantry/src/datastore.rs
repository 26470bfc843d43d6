//! Where the cluster's state is: in a folder of this machine, or in etcd.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sealing::Sealer;
use store::{Endpoint, EtcdConfig, Options, Store};

/// A state that cannot be reached; one clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum DatastoreError {
    #[error(transparent)]
    Open(#[from] store::OpenError),
    #[error(transparent)]
    Sealing(#[from] sealing::ConfigError),
    #[error("cannot read {path}: {why}")]
    Pem { path: PathBuf, why: String },
    #[error("{0} is spoken to with TLS; say with --datastore-cafile whose certificate to trust")]
    Authority(Endpoint),
    #[error("--datastore-certfile and --datastore-keyfile go together; only one of them is set")]
    Half,
    #[error("the certificate {path} cannot be used: {why}")]
    Certificate { path: PathBuf, why: String },
    #[error("cannot start the runtime's threads: {0}")]
    Threads(std::io::Error),
}

/// Settings of an external etcd.
#[derive(Clone, Debug, Default, Args)]
pub struct DatastoreArgs {
    /// Keep the cluster's state in this etcd: https://host:2379, several separated by commas
    /// [default: in the data directory]
    #[arg(long, env = "GANTRY_DATASTORE_ENDPOINT", value_name = "URL", value_delimiter = ',')]
    pub datastore_endpoint: Vec<Endpoint>,
    /// The certificate authority of that etcd
    #[arg(long, env = "GANTRY_DATASTORE_CAFILE", value_name = "FILE")]
    pub datastore_cafile: Option<PathBuf>,
    /// The certificate to show to that etcd
    #[arg(long, env = "GANTRY_DATASTORE_CERTFILE", value_name = "FILE")]
    pub datastore_certfile: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, env = "GANTRY_DATASTORE_KEYFILE", value_name = "FILE")]
    pub datastore_keyfile: Option<PathBuf>,
    /// Which resources are encrypted at rest, and how: an EncryptionConfiguration
    #[arg(long, env = "GANTRY_ENCRYPTION_PROVIDER_CONFIG", value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
}

impl DatastoreArgs {
    /// The etcd that is meant, if one is.
    pub fn etcd(&self) -> Result<Option<EtcdConfig>, DatastoreError> {
        if self.datastore_endpoint.is_empty() {
            return Ok(None);
        }
        let mut config = EtcdConfig::new(self.datastore_endpoint.clone());
        if let Some(secure) = self.datastore_endpoint.iter().find(|e| e.secure) {
            config.tls = Some(self.tls(secure)?);
        }
        Ok(Some(config))
    }

    fn tls(&self, endpoint: &Endpoint) -> Result<Arc<ClientConfig>, DatastoreError> {
        let ca = self.datastore_cafile.as_ref().ok_or_else(|| DatastoreError::Authority(endpoint.clone()))?;
        let pem = |path: &Path, why: String| DatastoreError::Pem { path: path.to_owned(), why };
        let certificates = |path: &Path| {
            let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let all = all.map_err(|e| pem(path, e.to_string()))?;
            if all.is_empty() { Err(pem(path, "it holds no certificate".to_owned())) } else { Ok(all) }
        };
        let unusable = |path: &Path, e: rustls::Error| DatastoreError::Certificate {
            path: path.to_owned(),
            why: e.to_string(),
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|e| unusable(ca, e))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| unusable(ca, e))?
            .with_root_certificates(roots);
        let mut config = match (&self.datastore_certfile, &self.datastore_keyfile) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let der = PrivateKeyDer::from_pem_file(key).map_err(|e| pem(key, e.to_string()))?;
                builder
                    .with_client_auth_cert(certificates(certificate)?, der)
                    .map_err(|e| unusable(certificate, e))?
            }
            _ => return Err(DatastoreError::Half),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// The store's options: what encrypts its records. Changes of the file are followed.
    pub fn options(&self) -> Result<Options, DatastoreError> {
        let Some(path) = &self.encryption_provider_config else { return Ok(Options::default()) };
        let sealer = Sealer::open(path)?;
        sealer.follow().map_err(DatastoreError::Threads)?;
        Ok(Options { seal: Some(sealer), ..Options::default() })
    }

    /// Opens the state, wherever it is.
    pub async fn open(&self, data_dir: &Path, options: Options) -> Result<Store, DatastoreError> {
        if let Some(config) = self.etcd()? {
            return Ok(Store::connect(config, options).await?);
        }
        let path = data_dir.join("store");
        let opened = tokio::task::spawn_blocking(move || Store::open(&path, options)).await;
        Ok(opened.map_err(|e| DatastoreError::Threads(std::io::Error::other(e)))??)
    }
}
