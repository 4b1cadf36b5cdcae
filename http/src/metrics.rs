//! Metrics: one registry a process, handed to every module, and one answer of `/metrics`.

use axum::extract::{MatchedPath, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts, Registry, TextEncoder};

use crate::api_error::ApiError;

/// The registry of a process: with `galerna_build_info`, and on Linux the `process_*` metrics.
///
/// # Errors
/// When a metric cannot be registered, which does not happen.
pub fn process_registry(version: &str) -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    let build =
        IntGaugeVec::new(Opts::new("galerna_build_info", "1, with the version as label"), &["version"])?;
    build.with_label_values(&[version]).set(1);
    registry.register(Box::new(build))?;
    #[cfg(target_os = "linux")]
    crate::process::register(&registry)?;
    Ok(registry)
}

/// All metrics of a registry in Prometheus' text format.
///
/// # Errors
/// When they cannot be written, which does not happen.
pub fn text(registry: &Registry) -> Result<String, prometheus::Error> {
    TextEncoder::new().encode_to_string(&registry.gather())
}

/// The answer of `/metrics`.
pub fn answer(registry: &Registry) -> Response {
    match text(registry) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(e) => {
            let message = format!("the metrics cannot be written: {e}");
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics", message).into_response()
        }
    }
}

/// The route that takes a request, as metrics and the log show it: what no route takes is `other`, so that nobody can add to
/// their number.
pub fn route(request: &Request) -> String {
    request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned()
}

/// Gauges that are set when they are read.
pub struct OnScrape<F> {
    gauges: Vec<Box<dyn Collector>>,
    set: F,
}

impl<F: Fn() + Send + Sync> OnScrape<F> {
    /// These gauges, set by this before each reading.
    pub fn new(gauges: Vec<Box<dyn Collector>>, set: F) -> Self {
        Self { gauges, set }
    }
}

impl<F: Fn() + Send + Sync> Collector for OnScrape<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.iter().flat_map(|gauge| gauge.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.set)();
        self.gauges.iter().flat_map(|gauge| gauge.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::IntGauge;

    use super::*;

    #[test]
    fn a_registry_tells_of_the_build_the_process_and_gauges_as_they_are_when_it_is_read() {
        let registry = process_registry("1.2.3").unwrap();
        let gauge = IntGauge::new("reads", "how often it was read").unwrap();
        let set = {
            let gauge = gauge.clone();
            move || gauge.inc()
        };
        registry.register(Box::new(OnScrape::new(vec![Box::new(gauge)], set))).unwrap();
        for n in 1..3 {
            let text = text(&registry).unwrap();
            assert!(text.contains(&format!("reads {n}")), "{text}");
            assert!(text.contains(r#"galerna_build_info{version="1.2.3"} 1"#), "{text}");
            #[cfg(target_os = "linux")]
            assert!(text.contains("process_open_fds") && text.contains("process_resident_memory_bytes"));
        }
    }
}
