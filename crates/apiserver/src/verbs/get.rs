use http::Response;
use types::Status;

use crate::encode;
use crate::pipeline::Call;
use crate::respond::Body;
use crate::state::Inner;

/// One object, as its stored bytes.
pub(crate) async fn get(server: &Inner, call: Call) -> Result<Response<Body>, Status> {
    let r = &call.request;
    let record = server.store.get(&r.def.table, &r.key()).ok_or_else(|| r.not_found())?;
    encode::object(server, r, call.http.headers(), &record).await
}
