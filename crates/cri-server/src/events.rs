//! What happens to containers and sandboxes, told to whoever listens (`GetContainerEvents`).

use base::Drain;
use cri::{ContainerEventResponse, ContainerEventType, Message};
use runtime::ContainerEvent;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use crate::service::CriService;

impl CriService {
    /// Hears of beginnings and ends from the engine, in their order.
    pub(crate) fn follow_events(&self, drain: &Drain) {
        let (this, mut events) = (self.clone(), self.0.runtime.events());
        drain.spawn_until_started(async move {
            loop {
                match events.recv().await {
                    Ok(ContainerEvent::Started { id, .. }) => this.tell(&id, ContainerEventType::Started),
                    Ok(ContainerEvent::Exited { id, .. }) => this.tell(&id, ContainerEventType::Stopped),
                    Ok(ContainerEvent::SandboxLost { sandbox_id }) => {
                        this.tell_of_sandbox(&sandbox_id, ContainerEventType::Stopped);
                    }
                    // Kubelets look at everything now and then, so what was missed is found.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }

    /// Tells that something happened to a container.
    pub(crate) fn tell(&self, id: &str, what: ContainerEventType) {
        if let Ok(record) = self.0.records.container(id) {
            self.send(id, &record.sandbox, what);
        }
    }

    /// Tells that something happened to a sandbox, which is told like a container.
    pub(crate) fn tell_of_sandbox(&self, id: &str, what: ContainerEventType) {
        self.send(id, id, what);
    }

    fn send(&self, id: &str, sandbox: &str, what: ContainerEventType) {
        if self.0.events.receiver_count() == 0 {
            return;
        }
        let status = self.0.records.sandbox(sandbox).ok().map(|record| self.sandbox_status(&record, None));
        let event = ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: what,
            created_at: self.now(),
            pod_sandbox_status: status,
            containers_statuses: self.statuses_of(sandbox),
        };
        // Whoever listened may have gone.
        let _ = self.0.events.send(event);
    }

    /// All that happens from now on, until the listener goes or lags by a thousand events.
    pub(crate) fn events(&self) -> mpsc::Receiver<Vec<u8>> {
        let mut events = self.0.events.subscribe();
        let (send, receive) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = events.recv() => event,
                    () = send.closed() => return,
                };
                let Ok(event) = event else { return };
                if send.send(event.encode()).await.is_err() {
                    return;
                }
            }
        });
        receive
    }
}
