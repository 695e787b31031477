//! The greeting that rides on every call between nodes and on every answer, also on a refusal: which
//! generations the sender has lived through, and which start of its daemon speaks (ADR-0010). In gRPC's
//! metadata, so that no kind of call can be without.

use crate::site::Site;
use crm_quorum::takeover::{Call, Greeting};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status};

const KEY: &str = "crm-greeting-bin";
/// Bytes of metadata that a node takes: a greeting grows by 22 with each generation.
pub(crate) const METADATA_MAX: u32 = 1 << 20;

fn put(metadata: &mut MetadataMap, greeting: &Greeting) -> Result<(), Status> {
    let bytes = postcard::to_stdvec(greeting).map_err(|e| Status::internal(e.to_string()))?;
    metadata.insert_bin(KEY, MetadataValue::from_bytes(&bytes));
    Ok(())
}

fn read(metadata: &MetadataMap) -> Option<Greeting> {
    let bytes = metadata.get_bin(KEY)?.to_bytes().ok()?;
    postcard::from_bytes(&bytes).ok()
}

impl Site {
    /// A message for `to`, with our greeting.
    pub(crate) fn greet<T>(&self, to: u64, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        put(request.metadata_mut(), &self.succession.greeting(to))?;
        Ok(request)
    }

    /// The answer of `from`, if it may be used.
    pub(crate) fn met<T>(
        &self,
        call: Call,
        from: u64,
        result: Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let metadata = match &result {
            Ok(response) => response.metadata(),
            Err(status) => status.metadata(),
        };
        let greeting = read(metadata);
        let usable = greeting.as_ref().map(|g| self.succession.answered(call, from, g));
        match (result, usable) {
            (Ok(response), Some(true)) => Ok(response.into_inner()),
            (Ok(_), Some(false)) => Err(Status::unknown("the answer comes of another generation")),
            (Ok(_), None) => Err(Status::unknown("the answer has no greeting")),
            (Err(status), _) => Err(status),
        }
    }

    /// Whether a call of `from` is served.
    pub(crate) fn admit(
        &self,
        call: Call,
        from: u64,
        metadata: &MetadataMap,
    ) -> Result<(), Status> {
        let greeting =
            read(metadata).ok_or_else(|| Status::invalid_argument("the call has no greeting"))?;
        self.succession.receive(call, from, &greeting).map_err(|refusal| {
            let from = self.name_of(from);
            tracing::debug!(?from, ?call, %refusal, "call refused");
            Status::failed_precondition(refusal.to_string())
        })
    }

    /// The answer to `to`, with our greeting.
    pub(crate) fn reply<T>(
        &self,
        to: u64,
        result: Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        let greeting = self.succession.greeting(to);
        match result {
            Ok(message) => {
                let mut response = Response::new(message);
                put(response.metadata_mut(), &greeting)?;
                Ok(response)
            }
            Err(mut status) => {
                put(status.metadata_mut(), &greeting)?;
                Err(status)
            }
        }
    }
}
