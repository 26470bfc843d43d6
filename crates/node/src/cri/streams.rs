//! Where the runtime serves the streams of `exec`, `attach` and `port-forward`.

use cri::runtime as calls;
use runtime::ExecSpec;
use streaming::Wanted;

use super::{Cri, CriError};

impl Cri {
    pub(crate) async fn exec_url(
        &self,
        id: &str,
        spec: ExecSpec,
        wanted: Wanted,
    ) -> Result<String, CriError> {
        let question = cri::ExecRequest {
            container_id: id.to_owned(),
            cmd: spec.argv,
            tty: wanted.tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            // A terminal has one output.
            stderr: wanted.stderr && !wanted.tty,
            ..Default::default()
        };
        Ok(self.ask(&calls::EXEC, question).await?.url)
    }

    pub(crate) async fn attach_url(&self, id: &str, wanted: Wanted) -> Result<String, CriError> {
        let question = cri::AttachRequest {
            container_id: id.to_owned(),
            tty: wanted.tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr && !wanted.tty,
            ..Default::default()
        };
        Ok(self.ask(&calls::ATTACH, question).await?.url)
    }

    pub(crate) async fn port_forward_url(&self, uid: &str, ports: &[u16]) -> Result<String, CriError> {
        let question = cri::PortForwardRequest {
            pod_sandbox_id: self.id(uid)?,
            port: ports.iter().map(|port| i32::from(*port)).collect(),
        };
        Ok(self.ask(&calls::PORT_FORWARD, question).await?.url)
    }
}
