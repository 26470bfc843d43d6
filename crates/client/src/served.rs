use std::time::Duration;

use kube::{Client, Resource};

use crate::discover::discover;

/// After so long the server is asked again what it has.
const AGAIN: Duration = Duration::from_secs(5);

/// Whether the server has a kind in this version: some are off unless `--runtime-config` says otherwise. Asks until the
/// server answers, so whoever calls this ends it when nobody wants to know any more.
pub async fn is_served<K: Resource<DynamicType = ()>>(client: &Client) -> bool {
    loop {
        match discover(client).await {
            Ok((found, _)) => {
                return found.iter().any(|known| {
                    known.resource.kind == K::kind(&())
                        && known.resource.group == K::group(&())
                        && known.resource.version == K::version(&())
                });
            }
            Err(error) => tracing::debug!(%error, kind = %K::kind(&()), "cannot ask which kinds there are"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}
