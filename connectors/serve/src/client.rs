//! The other end: the API of a running Tidewatch, asked.

/// Asks once; the status and the body. No redirects are followed.
///
/// # Errors
/// What is wrong with the URL, or why there is no answer, in words.
pub fn ask(
    method: &str,
    url: &str,
    token: Option<&str>,
    body: Option<&serde_json::Value>,
) -> Result<(u16, String), String> {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    if body.is_some() {
        request = request.header("Content-Type", "application/json");
    }
    let text = body.map(serde_json::Value::to_string).unwrap_or_default();
    let request = request.body(text).map_err(|_| format!("{url}: not a URL"))?;
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into();
    let mut response = agent.run(request).map_err(|error| format!("{url}: {error}"))?;
    let text = response.body_mut().read_to_string().map_err(|error| format!("{url}: {error}"))?;
    Ok((response.status().as_u16(), text))
}
