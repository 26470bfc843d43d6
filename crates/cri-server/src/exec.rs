//! More processes in containers, and the URLs at which clients join them.

use std::time::Duration;

use cri::{
    AttachRequest, AttachResponse, ContainerState, ExecRequest, ExecResponse, ExecSyncRequest,
    ExecSyncResponse, PodSandboxState, PortForwardRequest, PortForwardResponse,
};
use runtime::ExecSpec;
use streaming::{Process, Wanted};

use crate::error::CriError;
use crate::records::ContainerRecord;
use crate::service::CriService;
use crate::streams::Target;

impl CriService {
    pub(crate) async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse, CriError> {
        let record = self.running(&request.container_id)?;
        if request.cmd.is_empty() {
            return Err(CriError::Invalid("cmd is empty".to_owned()));
        }
        let limit = u64::try_from(request.timeout).ok().filter(|limit| *limit > 0).map(Duration::from_secs);
        let output = self.0.runtime.exec_sync(&record.id, request.cmd, limit).await?;
        Ok(ExecSyncResponse { stdout: output.stdout, stderr: output.stderr, exit_code: output.code })
    }

    pub(crate) async fn exec(&self, request: ExecRequest) -> Result<ExecResponse, CriError> {
        let record = self.running(&request.container_id)?;
        if request.cmd.is_empty() {
            return Err(CriError::Invalid("cmd is empty".to_owned()));
        }
        let wanted = wanted(request.stdin, request.stdout, request.stderr, request.tty)?;
        let exec =
            ExecSpec { argv: request.cmd, tty: request.tty, stdin: request.stdin, ..ExecSpec::default() };
        let process = Process { container: record.id.clone(), exec: Some(exec), wanted };
        Ok(ExecResponse { url: self.0.streams.url(&self.new_id(), "exec", Target::Process(process)) })
    }

    pub(crate) async fn attach(&self, request: AttachRequest) -> Result<AttachResponse, CriError> {
        let record = self.running(&request.container_id)?;
        let wanted = wanted(request.stdin, request.stdout, request.stderr, request.tty)?;
        let process = Process { container: record.id.clone(), exec: None, wanted };
        Ok(AttachResponse { url: self.0.streams.url(&self.new_id(), "attach", Target::Process(process)) })
    }

    pub(crate) async fn port_forward(
        &self,
        request: PortForwardRequest,
    ) -> Result<PortForwardResponse, CriError> {
        let record = self.0.records.sandbox(&request.pod_sandbox_id)?;
        if self.sandbox_state(&record.id) != PodSandboxState::Ready {
            return Err(CriError::State(format!("sandbox {} is not ready", record.id)));
        }
        let ports = request.port.iter().map(|port| {
            let fault = || CriError::Invalid(format!("{port} is no port"));
            u16::try_from(*port).ok().filter(|port| *port > 0).ok_or_else(fault)
        });
        let target = Target::Ports { sandbox: record.id.clone(), ports: ports.collect::<Result<_, _>>()? };
        Ok(PortForwardResponse { url: self.0.streams.url(&self.new_id(), "portforward", target) })
    }

    fn running(&self, id: &str) -> Result<std::sync::Arc<ContainerRecord>, CriError> {
        let record = self.0.records.container(id)?;
        if self.status_of(&record).state != ContainerState::Running {
            return Err(CriError::State(format!("container {} is not running", record.id)));
        }
        Ok(record)
    }
}

fn wanted(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Result<Wanted, CriError> {
    if tty && stderr {
        return Err(CriError::Invalid(
            "tty and stderr cannot both be true: a terminal has one output".to_owned(),
        ));
    }
    if !(stdin || stdout || stderr) {
        return Err(CriError::Invalid("one of stdin, stdout and stderr must be set".to_owned()));
    }
    Ok(Wanted { stdin, stdout, stderr, tty })
}
