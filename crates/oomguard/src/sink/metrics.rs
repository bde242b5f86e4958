//! The status as Prometheus text (OpenMetrics): for a scrape, or a file that a collector picks up.
//!
//! Only a rendering of [`Status`]: nothing is counted here. A value that is not known is left out, never zero.

use std::sync::atomic::AtomicU64;

use oomguard_core::{Bytes, Level};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::control::{GpuStatus, Phase, Status, WorkerStatus};

type Float = Gauge<f64, AtomicU64>;
type Labels = Vec<(&'static str, String)>;

/// The whole text, ending in `# EOF`.
pub fn render(status: &Status) -> String {
    let mut registry = Registry::with_prefix("oomguard");
    guard(&mut registry, status);
    gpus(&mut registry, &status.host.gpus);
    workers(&mut registry, &status.workers);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

fn guard(registry: &mut Registry, status: &Status) {
    let (guard, host) = (&status.guard, &status.host);
    let level = match host.level {
        Level::Normal => 0.0,
        Level::Warning => 1.0,
        Level::Critical => 2.0,
    };
    let size = |bytes: Bytes| bytes.0 as f64;
    for (name, help, value) in [
        ("memory_available_bytes", "Memory that can still be given without swapping", size(host.available)),
        ("memory_total_bytes", "RAM, or the smallest cgroup limit above the guard", size(host.total)),
        ("memory_reserve_bytes", "Available memory that must never be used", size(host.reserve)),
        ("memory_warning_bytes", "Available memory below which people are warned", size(host.warning)),
        ("memory_level", "0 normal, 1 below the warning, 2 below the reserve", level),
        ("guard_uptime_seconds", "Time since the guard started", guard.uptime_s),
    ] {
        let gauge = Float::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    }
    let info = Family::<Labels, Float>::default();
    let labels =
        vec![("version", guard.version.clone()), ("enforcement", guard.enforcement.name().to_owned())];
    info.get_or_create(&labels).set(1.0);
    registry.register("guard_info", "What guards, and what holds workers to their limit", info);
}

fn gpus(registry: &mut Registry, gpus: &[GpuStatus]) {
    type Of = fn(&GpuStatus) -> Option<f64>;
    let gauges: [(&str, &str, Of); 4] = [
        ("gpu_memory_free_bytes", "What is left of a GPU's memory", |gpu| {
            gpu.free.map(|bytes| bytes.0 as f64)
        }),
        ("gpu_memory_total_bytes", "All memory of a GPU", |gpu| gpu.total.map(|bytes| bytes.0 as f64)),
        ("gpu_memory_short", "1 while less than the reserve is left of a GPU", |gpu| {
            gpu.free.map(|_| f64::from(u8::from(gpu.short)))
        }),
        ("gpu_memory_stuck", "1 while a dead worker still holds some of a GPU", |gpu| {
            Some(f64::from(u8::from(gpu.stuck.is_some())))
        }),
    ];
    // A machine where nobody looks at GPUs has no such metrics.
    for (name, help, of) in gauges.into_iter().filter(|_| !gpus.is_empty()) {
        let family = Family::<Labels, Float>::default();
        for gpu in gpus {
            if let Some(value) = of(gpu) {
                let labels = vec![("device", gpu.device.to_string()), ("gpu", gpu.name.clone())];
                family.get_or_create(&labels).set(value);
            }
        }
        registry.register(name, help, family);
    }
}

fn workers(registry: &mut Registry, workers: &[WorkerStatus]) {
    type Of = fn(&WorkerStatus) -> Option<f64>;
    let gauges: [(&str, &str, Of); 12] = [
        ("worker_running", "1 while the worker has a process", |worker| {
            Some(f64::from(u8::from(worker.pid.is_some())))
        }),
        ("worker_parked", "1 once the worker is not started any more", |worker| {
            Some(f64::from(u8::from(worker.phase == Phase::Parked)))
        }),
        ("worker_memory_usage_bytes", "What the worker uses", |worker| {
            worker.usage.map(|bytes| bytes.0 as f64)
        }),
        ("worker_memory_peak_bytes", "The most it used since its start", |worker| {
            worker.peak.map(|bytes| bytes.0 as f64)
        }),
        ("worker_memory_limit_bytes", "What it may use", |worker| worker.limit.map(|bytes| bytes.0 as f64)),
        ("worker_vram_usage_bytes", "What the worker holds of the GPU where that counts most", |worker| {
            worker.vram.map(|bytes| bytes.0 as f64)
        }),
        ("worker_vram_limit_bytes", "What it may hold of that", |worker| {
            worker.vram_limit.map(|bytes| bytes.0 as f64)
        }),
        ("worker_age_seconds", "Time since its start", |worker| worker.age_s),
        ("worker_leak_eta_seconds", "When it reaches its limit if it goes on growing", |worker| {
            worker.leak_eta_s
        }),
        ("worker_leak_bytes_per_second", "By how much it grows for good", |worker| {
            worker.leak_slope.map(|bytes| bytes.0 as f64)
        }),
        ("worker_leak_confidence_ratio", "How sure it is that it grows, 0 to 1", |worker| {
            worker.leak_confidence
        }),
        ("worker_failures_in_a_row", "Failures in a row", |worker| Some(f64::from(worker.failures))),
    ];
    let labels = |worker: &WorkerStatus| vec![("worker", worker.name.clone())];
    for (name, help, of) in gauges {
        let family = Family::<Labels, Float>::default();
        for worker in workers {
            if let Some(value) = of(worker) {
                family.get_or_create(&labels(worker)).set(value);
            }
        }
        registry.register(name, help, family);
    }
    let starts = Family::<Labels, Counter>::default();
    for worker in workers {
        starts.get_or_create(&labels(worker)).inc_by(worker.attempt.into());
    }
    registry.register("worker_starts", "Starts of the worker since the guard started", starts);
}

#[cfg(test)]
mod tests {
    use oomguard_core::Enforcement;

    use super::*;
    use crate::control::{GpuStatus, GuardStatus, HostStatus};

    #[test]
    fn what_is_known_is_there_and_what_is_not_is_left_out() {
        let worker = WorkerStatus {
            name: "worker-1".to_owned(),
            slot: 0,
            phase: Phase::Running,
            pid: Some(1),
            age_s: Some(74.5),
            max_age_s: None,
            usage: Some(Bytes::gib(1)),
            peak: None,
            limit: Some(Bytes::gib(8)),
            attempt: 3,
            failures: 0,
            next_start_in_s: None,
            trial: None,
            status_text: None,
            leak_eta_s: Some(2400.0),
            leak_slope: Some(Bytes::mib(1)),
            leak_confidence: Some(0.997),
            vram: Some(Bytes::gib(3)),
            vram_limit: Some(Bytes::gib(4)),
            gpu: Some("GPU 0".to_owned()),
        };
        let status = Status {
            guard: GuardStatus {
                pid: 9,
                version: "0.1.0".to_owned(),
                uptime_s: 60.0,
                enforcement: Enforcement::Cgroup2,
                notes: vec![],
                config: None,
            },
            host: HostStatus {
                available: Bytes::gib(12),
                total: Bytes::gib(64),
                level: Level::Normal,
                reserve: Bytes::gib(2),
                warning: Bytes::gib(4),
                gpus: vec![GpuStatus {
                    device: 0,
                    name: "GPU 0".to_owned(),
                    total: Some(Bytes::gib(16)),
                    free: None,
                    used_percent: None,
                    unknown: Some("not read yet".to_owned()),
                    short: false,
                    stuck: Some("worker-2".to_owned()),
                }],
            },
            workers: vec![worker],
        };
        let text = render(&status);
        for line in [
            "# TYPE oomguard_memory_available_bytes gauge",
            "oomguard_memory_available_bytes 12884901888.0",
            "oomguard_memory_level 0.0",
            "oomguard_guard_info{version=\"0.1.0\",enforcement=\"cgroup2\"} 1.0",
            "oomguard_worker_memory_usage_bytes{worker=\"worker-1\"} 1073741824.0",
            "oomguard_worker_age_seconds{worker=\"worker-1\"} 74.5",
            "oomguard_worker_leak_eta_seconds{worker=\"worker-1\"} 2400.0",
            "oomguard_worker_leak_bytes_per_second{worker=\"worker-1\"} 1048576.0",
            "oomguard_worker_leak_confidence_ratio{worker=\"worker-1\"} 0.997",
            "oomguard_worker_starts_total{worker=\"worker-1\"} 3",
            "oomguard_worker_vram_usage_bytes{worker=\"worker-1\"} 3221225472.0",
            "oomguard_worker_vram_limit_bytes{worker=\"worker-1\"} 4294967296.0",
            "oomguard_gpu_memory_total_bytes{device=\"0\",gpu=\"GPU 0\"} 17179869184.0",
            "oomguard_gpu_memory_stuck{device=\"0\",gpu=\"GPU 0\"} 1.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("oomguard_worker_memory_peak_bytes{"), "{text}");
        assert!(!text.contains("oomguard_gpu_memory_free_bytes{"), "{text}");
        assert!(text.ends_with("# EOF\n"));

        // A name cannot add a label or a line of its own.
        let workers = vec![WorkerStatus { name: "a\"} 9\nb\\".to_owned(), ..status.workers[0].clone() }];
        let text = render(&Status { workers, ..status });
        let line = "oomguard_worker_age_seconds{worker=\"a\\\"} 9\\nb\\\\\"} 74.5";
        assert!(text.lines().any(|found| found == line), "{text}");
    }
}
