//! What answers the requests of a listener: the functions, and the objects of an embedded store.
//!
//! One path through plain functions, for every router in between is a list of routes to go through and a future to keep.

use crate::local::{BUCKET, Local};
use crate::metrics::Group;
use crate::routes::Functions;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use embedded::objects::{Face, Objects};
use http::Method;
use shared::App;
use shared::http::{Routes, protected, renewed};
use std::time::Duration;
use tower::ServiceExt;

/// What answers. Clones are the same.
#[derive(Debug, Clone)]
pub struct Site(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// All functions.
    Functions(App, Functions),
    /// All functions, and the objects of an embedded store.
    Folder(App, Functions, Objects, Face),
    /// What takes bytes, and nothing else.
    Ingest(App, Routes),
    /// Anything.
    Router(Router),
}

impl Site {
    /// All routes of an installation in a folder.
    pub fn folder(local: &Local) -> anyhow::Result<Self> {
        let (app, functions) = (local.app.clone(), Functions::of(&local.app)?);
        Ok(Self(Kind::Folder(app, functions, local.objects.clone(), local.objects.face())))
    }

    /// All routes of one of the servers of an installation on shared stores.
    pub fn shared(app: &App) -> anyhow::Result<Self> {
        Ok(Self(Kind::Functions(app.clone(), Functions::of(app)?)))
    }

    /// The routes that bring bytes, and no others.
    pub fn ingest(app: &App) -> Self {
        Self(Kind::Ingest(app.clone(), oci::ingest(app.clone())))
    }

    /// Answers a request.
    pub async fn answer(self, request: Request) -> Response {
        match self.0 {
            Kind::Functions(app, functions) => {
                renewed(&app, &request).await;
                functions.answer(request).await
            }
            Kind::Folder(app, functions, objects, face) => {
                let object = request.uri().path().strip_prefix('/').and_then(|path| path.strip_prefix(BUCKET));
                if object.is_some_and(|key| key.len() > 1 && key.starts_with('/')) {
                    return protected(grouped(Group("objects"), face.call(request).await.map(Body::new)));
                }
                renewed(&app, &request).await;
                let swept = request.uri().path() == "/api/sweep" && request.method() == Method::POST;
                let response = functions.answer(request).await;
                if swept && response.status().is_success() {
                    // Regardless of age: this process knows which files it is still writing, and no other process uses
                    // the folder.
                    crate::serve::collect(objects, Duration::ZERO).await;
                }
                response
            }
            Kind::Ingest(app, routes) => {
                renewed(&app, &request).await;
                grouped(Group("ingest"), routes.answer(request).await)
            }
            Kind::Router(router) => match router.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
        }
    }
}

fn grouped(group: Group, mut response: Response) -> Response {
    response.extensions_mut().insert(group);
    response
}

impl From<Router> for Site {
    fn from(router: Router) -> Self {
        Self(Kind::Router(router))
    }
}

impl From<Site> for Router {
    fn from(site: Site) -> Self {
        Self::new().fallback(move |request: Request| site.clone().answer(request))
    }
}
