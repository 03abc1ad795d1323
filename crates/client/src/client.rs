//! The servers of a cluster, asked one after the other until one answers.

use crate::Error;
use crate::http::Http;
use crate::options::Options;
use crate::pause::{draw, pause};
use crate::place::Place;
use crate::request::Request;
use crate::verdict::{Next, Trial};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::{Instant, sleep_until};

/// A client. Clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub places: Vec<Place>,
    /// Who answered last is asked first.
    favourite: AtomicUsize,
    pub http: Http,
    pub options: Options,
}

impl Client {
    /// A client of the servers at `host:port`, or URLs of that. Nothing is connected yet.
    ///
    /// # Errors
    /// If there is none, or one makes no sense.
    pub fn new<S: AsRef<str>>(endpoints: impl IntoIterator<Item = S>) -> Result<Self, Error> {
        Self::with(endpoints, Options::default())
    }

    /// One with another patience.
    ///
    /// # Errors
    /// If there is no endpoint, or one makes no sense.
    pub fn with<S: AsRef<str>>(endpoints: impl IntoIterator<Item = S>, options: Options) -> Result<Self, Error> {
        let places: Vec<Place> =
            endpoints.into_iter().map(|endpoint| Place::parse(endpoint.as_ref())).collect::<Result<_, _>>()?;
        if places.is_empty() {
            return Err(Error::Misuse("a client needs at least one endpoint: host:port".into()));
        }
        let (favourite, http) = (AtomicUsize::new(0), Http::new(&options));
        Ok(Self { shared: Arc::new(Shared { places, favourite, http, options }) })
    }

    /// Asks anything that `GET /v1/openapi.json` describes and that is answered at once, and returns the answer as it
    /// is. The methods with names of their own are made of this.
    ///
    /// # Errors
    /// If it is refused, nobody is available, or nobody knows whether it was done.
    pub async fn ask(&self, request: &Request) -> Result<Value, Error> {
        let Shared { places, options, .. } = &*self.shared;
        let until = Instant::now() + options.deadline;
        let (mut trial, mut asked) = (Trial::new(request.kind.clone()), false);
        for round in 0..options.rounds.max(1) {
            if round > 0 {
                sleep_until(until.min(Instant::now() + pause(round - 1, draw()))).await;
            }
            let first = self.shared.favourite.load(Ordering::Relaxed);
            for at in (first..first + places.len()).map(|at| at % places.len()) {
                if asked && Instant::now() >= until {
                    return Err(trial.end());
                }
                asked = true;
                match self.try_one(&places[at], request, &mut trial, until).await {
                    Next::Done(said) => {
                        self.shared.favourite.store(at, Ordering::Relaxed);
                        return Ok(said);
                    }
                    Next::Fail(error) => return Err(error),
                    Next::Follow(_) | Next::GoOn => {}
                }
            }
        }
        Err(trial.end())
    }

    /// Asks one server, and those to which it sends us.
    async fn try_one(&self, place: &Place, request: &Request, trial: &mut Trial, until: Instant) -> Next {
        trial.begin();
        let (mut place, mut path) = (place.clone(), request.path.clone());
        loop {
            let heard = self.shared.http.exchange(&place, &path, request, until).await;
            match trial.judge(place.host(), heard) {
                Next::Follow(location) => match place.follow(&location) {
                    Some(there) => (place, path) = there,
                    None => {
                        return trial
                            .pass(place.host(), format!("{place} sends us to {location:?}, which is no address"));
                    }
                },
                next => return next,
            }
        }
    }
}
