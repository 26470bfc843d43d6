//! What is noted of requests, and where: the settings, by upstream's names (kubernetes/kubernetes,
//! `apiserver/pkg/server/options/audit.go`).

use std::path::PathBuf;
use std::time::Duration;

use apiserver::{
    AuditBatch, AuditConfig, AuditDelivery, AuditFormat, AuditLog, AuditMode, AuditPolicy, AuditWebhook,
};
use clap::{Args, ValueEnum};

use super::{AccessError, remote, yaml};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Events are collected and delivered many at a time
    Batch,
    /// Requests wait for the delivery of their events
    Blocking,
    /// They also fail, if the event of their arrival cannot be delivered
    BlockingStrict,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Whole events
    #[default]
    Json,
    /// A few words of each
    Legacy,
}

/// Settings of the audit, by upstream's names.
#[derive(Clone, Debug, Default, Args)]
pub struct AuditArgs {
    /// What is noted of requests: a Policy of audit.k8s.io/v1
    #[arg(long, env = "GANTRY_AUDIT_POLICY_FILE", value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// Where audit events are written; - for the standard output
    #[arg(long, env = "GANTRY_AUDIT_LOG_PATH", value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,
    /// Days that old audit logs are kept; 0 for ever
    #[arg(long, env = "GANTRY_AUDIT_LOG_MAXAGE", value_name = "DAYS", default_value_t = 0)]
    pub audit_log_maxage: u64,
    /// How many old audit logs are kept; 0 for all
    #[arg(long, env = "GANTRY_AUDIT_LOG_MAXBACKUP", value_name = "COUNT", default_value_t = 0)]
    pub audit_log_maxbackup: usize,
    /// Megabytes after which a new audit log is begun; 0 for 100
    #[arg(long, env = "GANTRY_AUDIT_LOG_MAXSIZE", value_name = "MB", default_value_t = 0)]
    pub audit_log_maxsize: u64,
    /// Compress old audit logs
    #[arg(long, env = "GANTRY_AUDIT_LOG_COMPRESS")]
    pub audit_log_compress: bool,
    /// How audit events are written
    #[arg(long, env = "GANTRY_AUDIT_LOG_FORMAT", value_name = "FORMAT", default_value = "json")]
    pub audit_log_format: Format,
    /// Whether requests wait for the audit log [default: blocking]
    #[arg(long, env = "GANTRY_AUDIT_LOG_MODE", value_name = "MODE")]
    pub audit_log_mode: Option<Mode>,
    /// Audit events that wait for the log at most; more are dropped
    #[arg(long, env = "GANTRY_AUDIT_LOG_BATCH_BUFFER_SIZE", value_name = "COUNT")]
    pub audit_log_batch_buffer_size: Option<usize>,
    /// Audit events that are written together at most
    #[arg(long, env = "GANTRY_AUDIT_LOG_BATCH_MAX_SIZE", value_name = "COUNT")]
    pub audit_log_batch_max_size: Option<usize>,
    /// How long an audit event waits for others
    #[arg(long, env = "GANTRY_AUDIT_LOG_BATCH_MAX_WAIT", value_name = "TIME", value_parser = super::duration)]
    pub audit_log_batch_max_wait: Option<Duration>,
    /// Shorten audit events that are too long for the log
    #[arg(long, env = "GANTRY_AUDIT_LOG_TRUNCATE_ENABLED")]
    pub audit_log_truncate_enabled: bool,
    /// What is too long, in bytes
    #[arg(
        long,
        env = "GANTRY_AUDIT_LOG_TRUNCATE_MAX_EVENT_SIZE",
        value_name = "BYTES",
        default_value_t = 102_400
    )]
    pub audit_log_truncate_max_event_size: usize,
    /// Kubeconfig of a server that is told of audit events
    #[arg(long, env = "GANTRY_AUDIT_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// Whether requests wait for that server [default: batch]
    #[arg(long, env = "GANTRY_AUDIT_WEBHOOK_MODE", value_name = "MODE")]
    pub audit_webhook_mode: Option<Mode>,
    /// How long that server is left alone after a failure; half as long again each time, five times [default: 10s]
    #[arg(long, env = "GANTRY_AUDIT_WEBHOOK_INITIAL_BACKOFF", value_name = "TIME", value_parser = super::duration)]
    pub audit_webhook_initial_backoff: Option<Duration>,
    /// Audit events that wait for the server at most; more are dropped [default: 10000]
    #[arg(long, env = "GANTRY_AUDIT_WEBHOOK_BATCH_BUFFER_SIZE", value_name = "COUNT")]
    pub audit_webhook_batch_buffer_size: Option<usize>,
    /// Audit events that the server is told of together at most [default: 400]
    #[arg(long, env = "GANTRY_AUDIT_WEBHOOK_BATCH_MAX_SIZE", value_name = "COUNT")]
    pub audit_webhook_batch_max_size: Option<usize>,
    /// How long an audit event waits for others [default: 30s]
    #[arg(long, env = "GANTRY_AUDIT_WEBHOOK_BATCH_MAX_WAIT", value_name = "TIME", value_parser = super::duration)]
    pub audit_webhook_batch_max_wait: Option<Duration>,
    /// Whether there is a limit on how often the server is told of audit events [default: true]
    #[arg(long, env = "GANTRY_AUDIT_WEBHOOK_BATCH_THROTTLE_ENABLE", value_name = "BOOL")]
    pub audit_webhook_batch_throttle_enable: Option<bool>,
    /// How often a second on average [default: 10]
    #[arg(long, env = "GANTRY_AUDIT_WEBHOOK_BATCH_THROTTLE_QPS", value_name = "NUMBER")]
    pub audit_webhook_batch_throttle_qps: Option<f32>,
    /// How often at once [default: 15]
    #[arg(long, env = "GANTRY_AUDIT_WEBHOOK_BATCH_THROTTLE_BURST", value_name = "COUNT")]
    pub audit_webhook_batch_throttle_burst: Option<u32>,
    /// Shorten audit events that are too long for the server
    #[arg(long, env = "GANTRY_AUDIT_WEBHOOK_TRUNCATE_ENABLED")]
    pub audit_webhook_truncate_enabled: bool,
    /// What is too long, in bytes
    #[arg(
        long,
        env = "GANTRY_AUDIT_WEBHOOK_TRUNCATE_MAX_EVENT_SIZE",
        value_name = "BYTES",
        default_value_t = 102_400
    )]
    pub audit_webhook_truncate_max_event_size: usize,
}

fn mode(mode: Mode, batch: AuditBatch) -> AuditMode {
    match mode {
        Mode::Batch => AuditMode::Batch(batch),
        Mode::Blocking => AuditMode::Blocking,
        Mode::BlockingStrict => AuditMode::BlockingStrict,
    }
}

fn positive(flag: &'static str, value: impl PartialOrd + Default) -> Result<(), AccessError> {
    if value > Default::default() { Ok(()) } else { Err(AccessError::Positive(flag)) }
}

impl AuditArgs {
    /// What is noted and where; nothing without a policy.
    pub(super) fn config(&self) -> Result<Option<AuditConfig>, AccessError> {
        let Some(path) = &self.audit_policy_file else {
            return match (&self.audit_log_path, &self.audit_webhook_config_file) {
                (Some(_), _) => Err(AccessError::Needs("audit-log-path", "audit-policy-file")),
                (_, Some(_)) => Err(AccessError::Needs("audit-webhook-config-file", "audit-policy-file")),
                (None, None) => Ok(None),
            };
        };
        let policy = AuditPolicy::read(&yaml(path)?)
            .map_err(|source| AccessError::Policy { path: path.clone(), source })?;
        let (log, webhook) = (self.log()?, self.webhook()?);
        // Without a place to go, nothing need be noted.
        Ok((log.is_some() || webhook.is_some()).then_some(AuditConfig { policy, log, webhook }))
    }

    fn log(&self) -> Result<Option<AuditLog>, AccessError> {
        let Some(path) = self.audit_log_path.clone() else { return Ok(None) };
        let usual = AuditBatch::log();
        let batch = AuditBatch {
            buffer: self.audit_log_batch_buffer_size.unwrap_or(usual.buffer),
            most: self.audit_log_batch_max_size.unwrap_or(usual.most),
            wait: self.audit_log_batch_max_wait.unwrap_or(usual.wait),
            throttle: None,
        };
        positive("audit-log-batch-buffer-size", batch.buffer)?;
        positive("audit-log-batch-max-size", batch.most)?;
        positive("audit-log-truncate-max-event-size", self.audit_log_truncate_max_event_size)?;
        Ok(Some(AuditLog {
            path,
            max_bytes: self.audit_log_maxsize.saturating_mul(1024 * 1024),
            max_age: Duration::from_secs(self.audit_log_maxage.saturating_mul(86_400)),
            max_backups: self.audit_log_maxbackup,
            compress: self.audit_log_compress,
            format: match self.audit_log_format {
                Format::Json => AuditFormat::Json,
                Format::Legacy => AuditFormat::Legacy,
            },
            delivery: AuditDelivery {
                mode: mode(self.audit_log_mode.unwrap_or(Mode::Blocking), batch),
                longest: self.audit_log_truncate_enabled.then_some(self.audit_log_truncate_max_event_size),
            },
        }))
    }

    fn webhook(&self) -> Result<Option<AuditWebhook>, AccessError> {
        let Some(path) = &self.audit_webhook_config_file else { return Ok(None) };
        let usual = AuditBatch::webhook();
        let (rate, burst) = usual.throttle.unwrap_or_default();
        let rate = self.audit_webhook_batch_throttle_qps.unwrap_or(rate);
        let burst = self.audit_webhook_batch_throttle_burst.unwrap_or(burst);
        let throttled = self.audit_webhook_batch_throttle_enable != Some(false);
        let batch = AuditBatch {
            buffer: self.audit_webhook_batch_buffer_size.unwrap_or(usual.buffer),
            most: self.audit_webhook_batch_max_size.unwrap_or(usual.most),
            wait: self.audit_webhook_batch_max_wait.unwrap_or(usual.wait),
            throttle: throttled.then_some((rate, burst)),
        };
        positive("audit-webhook-batch-buffer-size", batch.buffer)?;
        positive("audit-webhook-batch-max-size", batch.most)?;
        positive("audit-webhook-batch-throttle-qps", rate)?;
        positive("audit-webhook-batch-throttle-burst", burst)?;
        positive("audit-webhook-truncate-max-event-size", self.audit_webhook_truncate_max_event_size)?;
        let longest =
            self.audit_webhook_truncate_enabled.then_some(self.audit_webhook_truncate_max_event_size);
        Ok(Some(AuditWebhook {
            remote: remote(path)?,
            initial_backoff: self.audit_webhook_initial_backoff.unwrap_or(AuditWebhook::INITIAL_BACKOFF),
            delivery: AuditDelivery {
                mode: mode(self.audit_webhook_mode.unwrap_or(Mode::Batch), batch),
                longest,
            },
        }))
    }
}
