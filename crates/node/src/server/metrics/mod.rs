//! Numbers in the form that Prometheus reads: `/metrics` and below.

mod cadvisor;
mod own;
mod pressure;
mod resource;
mod text;

use types::Status;

use super::Server;

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

impl Server {
    /// The numbers at `/metrics/<which>`, or at `/metrics` itself.
    pub(super) async fn metrics(&self, which: &[&str]) -> Result<String, Status> {
        match which {
            [] => Ok(own::text(self).await),
            ["probes"] => Ok(own::probes(&self.meters.read())),
            ["resource"] => {
                let sample = self.stats.sample(false).await.map_err(Status::internal)?;
                Ok(resource::text(&sample))
            }
            ["cadvisor"] => {
                let sample = self.stats.sample(true).await.map_err(Status::internal)?;
                let mut disks = Vec::with_capacity(sample.pods.len());
                for pod in &sample.pods {
                    disks.push(self.disk_of(pod, None).await);
                }
                Ok(cadvisor::text(self, &sample, &disks))
            }
            _ => Err(Status::no_such_resource()),
        }
    }
}
