//! From the server's route `/ingest` to the source that publishes requests.

use std::any::Any;

use async_trait::async_trait;
use falaj_record::Hint;
use falaj_serve::{Ingest, Posted, Refused};
use falaj_source::{Desk, Form, Place, Refusal, Request};

/// The source's desk, as the server sees it.
pub struct Requests(pub Desk);

#[async_trait]
impl Ingest for Requests {
    fn max_body(&self) -> u64 {
        self.0.max_body().0
    }

    fn has_token(&self) -> bool {
        self.0.has_token()
    }

    fn admits(&self, token: Option<&[u8]>) -> bool {
        self.0.admits(token)
    }

    fn reserve(&self, body_bytes: u64) -> Result<Box<dyn Any + Send>, Refused> {
        match self.0.reserve(body_bytes) {
            Ok(place) => Ok(Box::new(place)),
            Err(refusal) => Err(refused(&refusal)),
        }
    }

    async fn take(&self, room: Box<dyn Any + Send>, posted: Posted) -> Result<String, Refused> {
        let place: Box<Place> = room.downcast().expect("it was reserved here");
        let Posted { body, lines, key } = posted;
        let form = if lines { Form::Lines } else { Form::Json };
        let request = Request { body, form, key };
        self.0
            .take(*place, request)
            .await
            .map_err(|refusal| refused(&refusal))
    }
}

fn refused(refusal: &Refusal) -> Refused {
    Refused {
        status: refusal.status(),
        error: refusal.to_string(),
        hint: refusal.hint(),
    }
}
