//! What several controllers share.

pub(crate) mod claim;
pub(crate) mod expectations;
pub(crate) mod hash;
pub(crate) mod history;
pub(crate) mod moments;
pub(crate) mod owned;
pub(crate) mod pod_control;
pub(crate) mod pods;
pub(crate) mod scaled;
pub(crate) mod slow_start;
pub(crate) mod status;
pub(crate) mod template;
pub(crate) mod written;
