use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use arrow::json::LineDelimitedWriter;
use serde_json::{Value, json};
use tidewatch_model::table::find;
use tidewatch_model::{Span, Timestamp};

use super::*;

const TS: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// Samples of a text as exporters show it; values are numbers, and labels have no quotes within.
fn samples<'a>(text: &'a str, target: &[(&'a str, &'a str)], ts: Timestamp) -> Vec<TypedSample<'a>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, inside) = series.split_once('{').unwrap_or((series, "}"));
            let pairs = inside.strip_suffix('}').unwrap().split("\",").filter(|pair| !pair.is_empty());
            let own = pairs.map(|pair| pair.split_once("=\"").unwrap());
            let own = own.map(|(label, value)| (label.trim(), value.trim_end_matches('"')));
            let labels = target.iter().copied().chain(own).collect();
            TypedSample { ts, name, labels, value: value.parse().unwrap() }
        })
        .collect()
}

/// Rows of a batch as JSON, without what is NULL and the time, which is asked for apart.
fn json_of(batch: &RecordBatch) -> Vec<Value> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    let text = String::from_utf8(writer.into_inner()).unwrap();
    text.lines()
        .map(|line| {
            let mut row: Value = serde_json::from_str(line).unwrap();
            row.as_object_mut().unwrap().remove("ts");
            row
        })
        .collect()
}

fn rows_of(typed: &mut Typed, samples: &[TypedSample<'_>], table: &str) -> Vec<Value> {
    let rows = typed.rows(samples).unwrap();
    for (name, batch) in &rows {
        assert_eq!(batch.schema(), find(name).unwrap().schema());
        assert!(batch.column(0).null_count() == 0);
    }
    rows.iter().filter(|(name, _)| *name == table).flat_map(|(_, batch)| json_of(batch)).collect()
}

/// Rows of a text, of a target called `chat` on gpu-7:8000.
fn rows(text: &str, table: &str) -> Vec<Value> {
    let samples = samples(text, &[("job", "chat"), ("instance", "gpu-7:8000")], TS);
    rows_of(&mut Typed::new(TypedTables::Auto.tables(false)), &samples, table)
}

#[test]
fn vllm() {
    let text = r#"
# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine="0",model_name="org/m"} 12.0
vllm:num_requests_running{engine="1",model_name="org/m"} 10.0
vllm:num_requests_waiting{engine="0",model_name="org/m"} 3.0
vllm:num_requests_waiting{engine="1",model_name="org/m"} 0.0
vllm:gpu_cache_usage_perc{engine="0",model_name="org/m"} 0.5
vllm:kv_cache_usage_perc{engine="0",model_name="org/m"} 0.75
vllm:kv_cache_usage_perc{engine="1",model_name="org/m"} 0.9375
vllm:num_preemptions_total{engine="0",model_name="org/m"} 4.0
vllm:prompt_tokens_total{engine="0",model_name="org/m"} 120000.0
vllm:generation_tokens_total{engine="0",model_name="org/m"} 340000.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="org/m"} 900.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="org/m"} 90.0
vllm:request_success_total{engine="0",finished_reason="abort",model_name="org/m"} 7.0
vllm:request_success_total{engine="0",finished_reason="error",model_name="org/m"} 3.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="org/m"} 0.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.5",model_name="org/m"} 600.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="0.5",model_name="org/m"} 11.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="org/m"} 1000.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="org/m"} 333.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="org/m"} 1000.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="org/m"} 5.0
python_gc_objects_collected_total{generation="0"} 9.0
"#;
    let expected = json!({
        "service": "chat/org/m", "replica": "gpu-7:8000", "host": "gpu-7", "model": "org/m", "requests_running": 22,
        "requests_waiting": 3, "kv_cache_ratio": 0.9375, "preemptions_total": 4, "requests_total": 1000, "errors_total": 3,
        "prompt_tokens_total": 120_000, "generated_tokens_total": 340_000
    });
    assert_eq!(rows(text, "serve"), [expected]);
    let bucket = |le: Value, count: i64| {
        let metric = "vllm:time_to_first_token_seconds";
        json!({"service": "chat/org/m", "replica": "gpu-7:8000", "metric": metric, "le": le, "count_total": count})
    };
    let buckets = rows(text, "serve_histogram");
    // JSON has no infinity.
    assert_eq!(buckets, [bucket(json!(0.001), 0), bucket(json!(0.5), 611), bucket(Value::Null, 1000)]);
    let samples = samples(text, &[("job", "chat"), ("instance", "gpu-7:8000")], TS);
    let rows = Typed::new(vec!["serve_histogram"]).rows(&samples).unwrap();
    assert_eq!(rows[0].1.column_by_name("le").unwrap().as_primitive::<Float64Type>().value(2), f64::INFINITY);
    assert_eq!(rows[0].1.column(0).as_primitive::<TimestampMicrosecondType>().values(), &[TS.0; 3]);
}

/// The engine before V1: other names, and what it does not say stays away.
#[test]
fn an_old_vllm() {
    let text = r#"
vllm:num_requests_running{model_name="m"} 1.0
vllm:gpu_cache_usage_perc{model_name="m"} 0.25
vllm:num_preemptions_total{model_name="m"} 0.0
vllm:request_success_total{finished_reason="stop",model_name="m"} 5.0
vllm:time_per_output_token_seconds_bucket{le="0.05",model_name="m"} 8.0
"#;
    let expected = json!({
        "service": "chat/m", "replica": "gpu-7:8000", "host": "gpu-7", "model": "m", "requests_running": 1,
        "kv_cache_ratio": 0.25, "preemptions_total": 0, "requests_total": 5
    });
    assert_eq!(rows(text, "serve"), [expected]);
    assert_eq!(rows(text, "serve_histogram")[0]["metric"], "vllm:time_per_output_token_seconds");
}

#[test]
fn vllm_in_ray_serve() {
    let text = r#"
ray_vllm_num_requests_running{ReplicaId="r-a",WorkerId="w",engine="0",model_name="m"} 1.0
ray_vllm_num_requests_running{ReplicaId="r-b",WorkerId="v",engine="0",model_name="m"} 2.0
ray_vllm_request_success_total{ReplicaId="r-a",WorkerId="w",finished_reason="stop",model_name="m"} 9.0
ray_vllm_request_success{ReplicaId="r-a",WorkerId="w",finished_reason="stop",model_name="m"} 9.0
ray_vllm_time_to_first_token_seconds_bucket{ReplicaId="r-a",WorkerId="w",le="0.5",model_name="m"} 8.0
"#;
    let replica =
        |id: &str| json!({"service": "chat/m", "replica": format!("gpu-7:8000/{id}"), "host": "gpu-7", "model": "m"});
    let (mut one, mut other) = (replica("r-a"), replica("r-b"));
    (one["requests_running"], one["requests_total"]) = (json!(1), json!(9));
    other["requests_running"] = json!(2);
    assert_eq!(rows(text, "serve"), [one, other]);
    assert_eq!(rows(text, "serve_histogram")[0]["metric"], "vllm:time_to_first_token_seconds");
}

/// A scrape that is sent on in two requests is one row.
#[test]
fn a_scrape_in_pieces() {
    let lines = [("stop", 90), ("length", 8)];
    let text =
        lines.map(|(reason, count)| format!("vllm:request_success_total{{finished_reason=\"{reason}\"}} {count}"));
    let mut typed = Typed::new(TypedTables::Auto.tables(false));
    for (seconds, text) in (0..).zip(&text) {
        let target = [("job", "chat"), ("instance", "gpu-7:8000")];
        typed.add(TS + Span::seconds(seconds), &samples(text, &target, TS));
        assert!(typed.whole(TS + Span::seconds(seconds)).unwrap().is_empty());
    }
    let rows = typed.whole(TS + Span::seconds(17)).unwrap();
    let (table, batch) = rows.first().unwrap();
    assert_eq!((*table, json_of(batch)[0]["requests_total"].clone()), ("serve", json!(98)));
}

/// Every rank of a tensor-parallel group may say the same; groups of data parallelism say different things.
#[test]
fn sglang() {
    let text = r#"
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="0"} 5.0
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="1",dp_rank="0"} 5.0
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="1"} 7.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="0"} 2.0
sglang:token_usage{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="0"} 0.5
sglang:token_usage{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="1"} 0.25
sglang:num_retracted_requests_total{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="0"} 6.0
sglang:num_requests_total{model_name="m"} 400.0
sglang:num_aborted_requests_total{model_name="m"} 9.0
sglang:prompt_tokens_total{model_name="m"} 1e6
sglang:generation_tokens_total{model_name="m"} 2.5e6
sglang:inter_token_latency_seconds_bucket{le="0.002",model_name="m"} 3.0
sglang:e2e_request_latency_seconds_bucket{le="+Inf",model_name="m"} 400.0
"#;
    let expected = json!({
        "service": "chat/m", "replica": "gpu-7:8000", "host": "gpu-7", "model": "m", "requests_running": 12,
        "requests_waiting": 2, "kv_cache_ratio": 0.5, "preemptions_total": 6, "requests_total": 400,
        "prompt_tokens_total": 1_000_000, "generated_tokens_total": 2_500_000
    });
    assert_eq!(rows(text, "serve"), [expected]);
    let metrics: Vec<Value> = rows(text, "serve_histogram").iter().map(|row| row["metric"].clone()).collect();
    assert_eq!(metrics, ["sglang:e2e_request_latency_seconds", "sglang:inter_token_latency_seconds"]);
}

#[test]
fn tgi() {
    let healthy = r#"
tgi_batch_current_size 4
tgi_queue_size 2
tgi_request_count 105
tgi_request_success 100
tgi_request_input_length_sum 5000
tgi_request_generated_tokens_sum 9000
tgi_request_duration_bucket{le="1.5"} 90
tgi_batch_inference_duration_bucket{method="decode",le="1.5"} 90
"#;
    let failing = format!(
        "{healthy}tgi_request_failure{{err=\"validation\"}} 40\ntgi_request_failure{{err=\"overloaded\"}} 2\ntgi_request_failure{{err=\"generation\"}} 1\n"
    );
    let mut expected = json!({
        "service": "chat", "replica": "gpu-7:8000", "host": "gpu-7", "requests_running": 4, "requests_waiting": 2,
        "requests_total": 100, "prompt_tokens_total": 5000, "generated_tokens_total": 9000
    });
    assert_eq!(rows(healthy, "serve"), [expected.clone()]);
    expected["requests_total"] = json!(143);
    expected["errors_total"] = json!(3);
    assert_eq!(rows(&failing, "serve"), [expected]);
    let bucket = json!({
        "service": "chat", "replica": "gpu-7:8000", "metric": "tgi_request_duration", "le": 1.5, "count_total": 90
    });
    assert_eq!(rows(healthy, "serve_histogram"), [bucket]);
}

#[test]
fn triton_with_and_without_a_language_model() {
    let text = r#"
nv_inference_request_success{model="resnet",version="1"} 161
nv_inference_request_success{model="resnet",version="2"} 9
nv_inference_request_failure{model="resnet",reason="REJECTED",version="1"} 2
nv_inference_request_failure{model="resnet",reason="CANCELED",version="1"} 5
nv_inference_pending_request_count{model="resnet",version="1"} 4
nv_inference_request_success{model="tensorrt_llm",version="1"} 10
nv_inference_pending_request_count{model="tensorrt_llm",version="1"} 99
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 3
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 8
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.5
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 6239
nv_inference_first_response_histogram_ms_bucket{model="tensorrt_llm",version="1",le="500"} 30
nv_inference_first_response_histogram_ms_bucket{model="tensorrt_llm",version="1",le="+Inf"} 37
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.5
"#;
    let resnet = json!({
        "service": "chat/resnet", "replica": "gpu-7:8000", "host": "gpu-7", "model": "resnet", "requests_waiting": 4,
        "requests_total": 177, "errors_total": 2
    });
    let llm = json!({
        "service": "chat/tensorrt_llm", "replica": "gpu-7:8000", "host": "gpu-7", "model": "tensorrt_llm",
        "requests_running": 8, "requests_waiting": 3, "kv_cache_ratio": 0.5, "requests_total": 10
    });
    assert_eq!(rows(text, "serve"), [resnet, llm]);
    let buckets = rows(text, "serve_histogram");
    assert_eq!(
        (&buckets[0]["metric"], &buckets[0]["le"]),
        (&json!("nv_inference_first_response_seconds"), &json!(0.5))
    );
    assert_eq!((buckets.len(), &buckets[1]["count_total"]), (2, &json!(37)));
}

#[test]
fn llama_cpp_and_ray_serve() {
    let text = "llamacpp:requests_processing 1\nllamacpp:requests_deferred 2\nllamacpp:kv_cache_usage_ratio 0.125\nllamacpp:prompt_tokens_total 77\nllamacpp:tokens_predicted_total 88\n";
    let expected = json!({
        "service": "chat", "replica": "gpu-7:8000", "host": "gpu-7", "requests_running": 1, "requests_waiting": 2,
        "kv_cache_ratio": 0.125, "prompt_tokens_total": 77, "generated_tokens_total": 88
    });
    assert_eq!(rows(text, "serve"), [expected]);
    let text = r#"
ray_serve_replica_processing_queries{application="app",deployment="Llm",replica="k3x",SessionName="s"} 2.0
ray_serve_deployment_request_counter_total{application="app",deployment="Llm",replica="k3x",route="/a"} 10.0
ray_serve_deployment_request_counter_total{application="app",deployment="Llm",replica="k3x",route="/b"} 5.0
ray_serve_deployment_request_counter{application="app",deployment="Llm",replica="k3x",route="/b"} 5.0
ray_serve_deployment_error_counter_total{application="app",deployment="Llm",replica="k3x",route="/a"} 1.0
ray_serve_deployment_queued_queries{application="app",deployment="Llm"} 3.0
ray_serve_deployment_processing_latency_ms_bucket{application="app",deployment="Llm",replica="k3x",route="/a",le="100.0"} 8.0
"#;
    let expected = json!({
        "service": "chat/app/Llm", "replica": "k3x", "host": "gpu-7", "requests_running": 2, "requests_total": 15,
        "errors_total": 1
    });
    assert_eq!(rows(text, "serve"), [expected]);
    let buckets = rows(text, "serve_histogram");
    assert_eq!(buckets[0]["metric"], "ray_serve_deployment_processing_latency_seconds");
    assert_eq!(buckets[0]["le"], 0.1);
}

#[test]
fn flink() {
    let text = r#"
flink_taskmanager_job_task_numRecordsIn{job_id="9a",job_name="etl",task_id="t1",task_name="join",subtask_index="3",host="tm_1",tm_id="x"} 1000.0
flink_taskmanager_job_task_numRecordsOut{job_id="9a",job_name="etl",task_id="t1",task_name="join",subtask_index="3",host="tm_1",tm_id="x"} 900.0
flink_taskmanager_job_task_currentInputWatermark{job_id="9a",job_name="etl",task_id="t1",task_name="join",subtask_index="3",host="tm_1",tm_id="x"} 1.79999994E12
flink_taskmanager_job_task_currentInputWatermark{job_id="9a",job_name="etl",task_id="t0",task_name="Source:_kafka",subtask_index="0",host="tm_1",tm_id="x"} -9.223372036854775808E18
flink_taskmanager_job_task_numRecordsOut{job_id="9a",job_name="etl",task_id="t0",task_name="Source:_kafka",subtask_index="0",host="tm_1",tm_id="x"} 7.0
flink_taskmanager_job_task_operator_pendingRecords{job_id="9a",job_name="etl",operator_name="Source:_kafka",task_name="Source:_kafka",subtask_index="0",host="tm_1"} 250.0
flink_jobmanager_job_numRestarts{job_id="9a",job_name="etl",host="jm"} 2.0
"#;
    let expected = [
        json!({"job": "chat/etl", "stage": "Source:_kafka/0", "host": "tm_1", "records_out_total": 7, "lag_records": 250}),
        json!({
            "job": "chat/etl", "stage": "join/3", "host": "tm_1", "records_in_total": 1000, "records_out_total": 900,
            "watermark_lag_seconds": 60.0
        }),
        json!({"job": "chat/etl", "stage": "jobmanager", "host": "jm", "restarts_total": 2}),
    ];
    assert_eq!(rows(text, "data_job"), expected);
}

/// A task that failed once is not one that still has to be done: job_no_progress would fire as long as the executor lives.
#[test]
fn spark_and_ray_data() {
    let text = r#"
metrics_executor_activeTasks{application_id="app-1", application_name="etl", executor_id="3"} 2
metrics_executor_completedTasks_total{application_id="app-1", application_name="etl", executor_id="3"} 50
metrics_executor_failedTasks_total{application_id="app-1", application_name="etl", executor_id="3"} 6
metrics_executor_totalTasks_total{application_id="app-1", application_name="etl", executor_id="3"} 58
metrics_executor_activeTasks{application_id="app-1", application_name="etl", executor_id="driver"} 0
metrics_executor_completedTasks_total{application_id="app-1", application_name="etl", executor_id="driver"} 0
ray_data_num_row_inputs_received{dataset="train_1_0",operator="Map(f)_1"} 400.0
ray_data_rows_task_outputs_generated{dataset="train_1_0",operator="Map(f)_1"} 300.0
ray_data_num_tasks_running{dataset="train_1_0",operator="Map(f)_1"} 4.0
ray_data_num_tasks_finished{dataset="train_1_0",operator="Map(f)_1"} 30.0
ray_data_num_tasks_failed{dataset="train_1_0",operator="Map(f)_1"} 1.0
"#;
    let expected = [
        json!({
            "job": "chat/train_1_0", "stage": "Map(f)_1", "records_in_total": 400, "records_out_total": 300,
            "tasks_total": 34, "tasks_done": 30, "tasks_failed": 1
        }),
        json!({"job": "chat/etl", "stage": "executor-3", "tasks_total": 52, "tasks_done": 50, "tasks_failed": 6}),
        json!({"job": "chat/etl", "stage": "executor-driver", "tasks_total": 0, "tasks_done": 0}),
    ];
    assert_eq!(rows(text, "data_job"), expected);
}

#[test]
fn dcgm() {
    let gpu = r#"gpu="0",UUID="GPU-1",pci_bus_id="00000000:3B:00.0",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",Hostname="gpu-017",DCGM_FI_DRIVER_VERSION="590.48.01""#;
    let mut text = String::new();
    for (metric, value) in [
        ("DEV_SM_CLOCK", "1980"),
        ("DEV_MEM_CLOCK", "2619"),
        ("DEV_MEMORY_TEMP", "9223372036854775794"),
        ("DEV_GPU_TEMP", "54"),
        ("DEV_POWER_USAGE", "412.5"),
        ("DEV_TOTAL_ENERGY_CONSUMPTION", "5000500"),
        ("DEV_PCIE_REPLAY_COUNTER", "3"),
        ("DEV_GPU_UTIL", "97"),
        ("DEV_MEM_COPY_UTIL", "50"),
        ("DEV_FB_FREE", "1000"),
        ("DEV_FB_USED", "80000"),
        ("DEV_FB_RESERVED", "559"),
        ("DEV_ROW_REMAP_FAILURE", "0"),
        ("DEV_UNCORRECTABLE_REMAPPED_ROWS", "1"),
        ("DEV_CLOCKS_EVENT_REASONS", "4"),
        ("DEV_POWER_VIOLATION", "120000000"),
        ("PROF_PIPE_TENSOR_ACTIVE", "0.25"),
        ("PROF_PCIE_TX_BYTES", "123456"),
    ] {
        text += &format!("DCGM_FI_{metric}{{{gpu}}} {value}\n");
        // A GPU that two pods share is told of twice.
        text += &format!("DCGM_FI_{metric}{{{gpu},pod=\"p\"}} {value}\n");
    }
    text += "DCGM_FI_DEV_FB_USED{gpu=\"0\",UUID=\"GPU-1\",GPU_I_PROFILE=\"1g.10gb\",GPU_I_ID=\"7\",Hostname=\"gpu-017\",hpc_job=\"4711\"} 2\n";
    let whole = json!({
        "host": "gpu-017", "gpu_uuid": "GPU-1", "gpu_index": 0, "gpu_name": "NVIDIA H100 80GB HBM3",
        "pci_bus_id": "00000000:3B:00.0", "utilization_ratio": 0.97, "memory_controller_ratio": 0.5,
        "tensor_active_ratio": 0.25, "memory_used_bytes": 80_000_i64 << 20, "memory_total_bytes": 81_559_i64 << 20,
        "temperature_celsius": 54.0, "power_watts": 412.5, "energy_joules_total": 5000.5, "sm_clock_mhz": 1980.0,
        "memory_clock_mhz": 2619.0, "throttle_reasons": 4, "throttle_power_ns_total": 120_000_000,
        "remapped_rows_uncorrected": 1, "remap_failed": false, "pcie_replays_total": 3
    });
    let instance = json!({
        "host": "gpu-017", "gpu_uuid": "GPU-1", "mig_uuid": "GI-7", "gpu_index": 0, "job": "4711",
        "memory_used_bytes": 2_i64 << 20
    });
    assert_eq!(rows(&text, "gpu"), [whole, instance]);
    let own = TypedTables::Auto.tables(true);
    assert!(!Typed::new(own).knows("DCGM_FI_DEV_GPU_UTIL"), "this machine watches its GPUs itself");
}

/// DCGM goes on showing the last XID. Only what is new is an event, and what stood there when the agent came is not.
#[test]
fn an_xid_is_told_once() {
    let mut typed = Typed::new(TypedTables::Auto.tables(false));
    let mut shown = |seconds: i64, lines: &[(&str, &str, i64)]| -> Vec<(String, i64)> {
        let text: String = lines
            .iter()
            .map(|(metric, gpu, value)| format!("DCGM_FI_DEV_{metric}{{UUID=\"{gpu}\",hostname=\"n1\"}} {value}\n"))
            .collect();
        let samples = samples(&text, &[("job", "dcgm"), ("instance", "n1:9400")], TS + Span::seconds(seconds));
        let rows = rows_of(&mut typed, &samples, "gpu_event");
        let event = |row: &Value| {
            assert_eq!((&row["host"], &row["kind"], &row["source"]), (&json!("n1"), &json!("xid"), &json!("dcgm")));
            (row["gpu_uuid"].as_str().unwrap().to_string(), row["code"].as_i64().unwrap())
        };
        rows.iter().map(event).collect()
    };
    let first = [("GPU_TEMP", "G1", 50), ("XID_ERRORS", "G1", 43), ("XID_ERRORS", "G2", 0), ("GPU_TEMP", "G3", 50)];
    assert_eq!(shown(0, &first), []);
    assert_eq!(shown(10, &first), []);
    assert_eq!(shown(20, &[("XID_ERRORS", "G1", 43), ("XID_ERRORS", "G2", 79)]), [("G2".to_string(), 79)]);
    assert_eq!(shown(30, &[("XID_ERRORS", "G1", 31), ("XID_ERRORS", "G2", 79)]), [("G1".to_string(), 31)]);
    assert_eq!(shown(40, &[("XID_ERRORS", "G2", 0), ("XID_ERRORS", "G3", 48)]), [("G3".to_string(), 48)]);
    assert_eq!(shown(50, &[("XID_ERRORS", "G2", 79)]), [("G2".to_string(), 79)]);
}

#[test]
fn what_has_no_identity_or_no_number_is_no_row() {
    assert_eq!(rows("ray_serve_replica_processing_queries{deployment=\"d\"} 1\n", "serve"), Vec::<Value>::new());
    assert_eq!(rows("llamacpp:requests_processing NaN\n", "serve"), Vec::<Value>::new());
    assert_eq!(rows("tgi_request_duration_bucket{le=\"much\"} 1\n", "serve_histogram"), Vec::<Value>::new());
    let mut typed = Typed::new(vec!["serve"]);
    let samples = samples("llamacpp:requests_processing 1\n", &[], TS);
    assert_eq!(rows_of(&mut typed, &samples, "serve"), Vec::<Value>::new());
    assert!(typed.knows("vllm:num_requests_running") && !typed.knows("vllm:time_to_first_token_seconds_bucket"));
}
