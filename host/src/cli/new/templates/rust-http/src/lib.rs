//! Greets over HTTP: `GET /hello/Ada`, or `POST /` with `{"name": "Ada"}`, is answered by `{"greeting": "Hello, Ada!"}`.

use serde::{Deserialize, Serialize};
use wstd::http::{Body, Error, Method, Request, Response, StatusCode};

#[derive(Deserialize)]
struct Guest {
    name: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Welcome {
    greeting: String,
}

#[wstd::http_server]
async fn main(mut request: Request<Body>) -> Result<Response<Body>, Error> {
    let path = request.uri().path().to_owned();
    let greeted = match (request.method().clone(), path.strip_prefix("/hello/")) {
        (Method::GET, Some(name)) => greet(&Guest { name: name.into() }),
        (Method::POST, None) if path == "/" => match request.body_mut().json().await {
            Ok(guest) => greet(&guest),
            Err(error) => Err((StatusCode::BAD_REQUEST, format!("the body does not fit: {error:#}"))),
        },
        _ => Err((StatusCode::NOT_FOUND, "there is GET /hello/NAME and POST /".into())),
    };
    let (status, body) = match greeted {
        Ok(welcome) => (StatusCode::OK, serde_json::json!(welcome)),
        Err((status, error)) => (status, serde_json::json!({ "error": error })),
    };
    let answer = Response::builder().status(status).header("content-type", "application/json");
    Ok(answer.body(body.to_string().into())?)
}

fn greet(guest: &Guest) -> Result<Welcome, (StatusCode, String)> {
    if guest.name.is_empty() {
        return Err((StatusCode::BAD_REQUEST, "a guest needs a name".into()));
    }
    println!("greeting {}", guest.name);
    Ok(Welcome { greeting: format!("Hello, {}!", guest.name) })
}
