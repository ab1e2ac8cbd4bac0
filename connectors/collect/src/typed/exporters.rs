//! What other people's exporters say, and where it goes: data, read by `fill`, and printed into docs/sources.md by a test.
//!
//! The names are those of the projects' sources and documentation. What an exporter does not say stays NULL.

/// A part of a text that names something.
#[derive(Debug, Clone, Copy)]
pub enum Word {
    /// The first of these labels that is there; without one the whole text is not known.
    Label(&'static [&'static str]),
    /// The same with something before it, and nothing where there is none.
    After(&'static str, &'static [&'static str]),
    /// As it stands.
    Text(&'static str),
    /// The first of these labels that is there, else `instance` without its port.
    Host(&'static [&'static str]),
}

/// A column that names the row's series, or describes it.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    /// The column.
    pub column: &'static str,
    /// What it is made of. A row without a part of its identity is none.
    pub words: &'static [Word],
}

/// Which series of a metric count.
#[derive(Debug, Clone, Copy)]
pub enum Only {
    /// All.
    All,
    /// Those whose label has one of these values.
    Is(&'static str, &'static [&'static str]),
    /// The others.
    Not(&'static str, &'static [&'static str]),
}

/// How a value becomes the column's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum How {
    /// Multiplied.
    Times(f64),
    /// A time in milliseconds since the epoch: how long ago it was, in seconds.
    MillisAgo,
}

/// A column with a value, and the metrics that give it. Of several for one column the first that has a value counts.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// The column.
    pub column: &'static str,
    /// Ways to have it, best first: the sum of the first whose metrics all came.
    pub ways: &'static [&'static [&'static str]],
    /// Which series.
    pub only: Only,
    /// The unit's factor.
    pub how: How,
}

/// A latency histogram.
#[derive(Debug, Clone, Copy)]
pub struct Histogram {
    /// The metric, without `_bucket`.
    pub metric: &'static str,
    /// What it is called in the table, where its bounds are seconds.
    pub name: &'static str,
    /// Seconds in its unit.
    pub seconds: f64,
}

/// One kind of row of one exporter.
#[derive(Debug, Clone, Copy)]
pub struct Exporter {
    /// Who it is.
    #[cfg_attr(not(test), expect(dead_code, reason = "the page of exporters has it, which a test writes"))]
    pub name: &'static str,
    /// The table of the measures; histograms go into `serve_histogram`.
    pub table: &'static str,
    /// The row's names.
    pub names: &'static [Name],
    /// Labels that number parts which all say the same: only those of number 0 count.
    pub ranks: &'static [&'static str],
    /// Whether whole numbers of several series that are one row are added; else the largest counts, as it does for all others.
    pub adds: bool,
    /// The columns.
    pub measures: &'static [Measure],
    /// The histograms.
    pub histograms: &'static [Histogram],
}

const fn name(column: &'static str, words: &'static [Word]) -> Name {
    Name { column, words }
}

const fn of(column: &'static str, ways: &'static [&'static [&'static str]]) -> Measure {
    Measure { column, ways, only: Only::All, how: How::Times(1.0) }
}

impl Measure {
    const fn is(self, label: &'static str, values: &'static [&'static str]) -> Measure {
        Measure { only: Only::Is(label, values), ..self }
    }

    const fn not(self, label: &'static str, values: &'static [&'static str]) -> Measure {
        Measure { only: Only::Not(label, values), ..self }
    }

    const fn times(self, factor: f64) -> Measure {
        Measure { how: How::Times(factor), ..self }
    }
}

const fn seconds(metric: &'static str) -> Histogram {
    Histogram { metric, name: metric, seconds: 1.0 }
}

const fn called(metric: &'static str, name: &'static str) -> Histogram {
    Histogram { metric, name, seconds: 1.0 }
}

const fn millis(metric: &'static str, name: &'static str) -> Histogram {
    Histogram { metric, name, seconds: 0.001 }
}

/// A target is a replica of a service; one that names its model serves several by one job, or will serve another tomorrow.
const SERVER: &[Name] = &[
    name("service", &[Word::Label(&["job"]), Word::After("/", &["model_name", "model"])]),
    name("replica", &[Word::Label(&["instance"])]),
    name("host", &[Word::Host(&[])]),
    name("model", &[Word::Label(&["model_name", "model"])]),
];

const VLLM: Exporter = Exporter {
    name: "vLLM",
    table: "serve",
    names: SERVER,
    ranks: &[],
    adds: true,
    measures: &[
        of("requests_running", &[&["vllm:num_requests_running"]]),
        of("requests_waiting", &[&["vllm:num_requests_waiting"]]),
        of("kv_cache_ratio", &[&["vllm:kv_cache_usage_perc"], &["vllm:gpu_cache_usage_perc"]]),
        of("preemptions_total", &[&["vllm:num_preemptions_total"]]),
        of("requests_total", &[&["vllm:request_success_total"]]),
        of("errors_total", &[&["vllm:request_success_total"]]).is("finished_reason", &["error"]),
        of("prompt_tokens_total", &[&["vllm:prompt_tokens_total"]]),
        of("generated_tokens_total", &[&["vllm:generation_tokens_total"]]),
    ],
    histograms: &[
        seconds("vllm:e2e_request_latency_seconds"),
        seconds("vllm:time_to_first_token_seconds"),
        seconds("vllm:inter_token_latency_seconds"),
        seconds("vllm:time_per_output_token_seconds"),
        seconds("vllm:request_time_per_output_token_seconds"),
        seconds("vllm:request_queue_time_seconds"),
        seconds("vllm:request_inference_time_seconds"),
        seconds("vllm:request_prefill_time_seconds"),
        seconds("vllm:request_decode_time_seconds"),
    ],
};

/// Ray's agent of a node shows those of all engines there, under names without a colon.
const RAY_VLLM: Exporter = Exporter {
    name: "vLLM in Ray Serve",
    table: "serve",
    names: &[
        name("service", &[Word::Label(&["job"]), Word::After("/", &["model_name"])]),
        name("replica", &[Word::Label(&["instance"]), Word::Text("/"), Word::Label(&["ReplicaId", "WorkerId"])]),
        name("host", &[Word::Host(&[])]),
        name("model", &[Word::Label(&["model_name"])]),
    ],
    ranks: &[],
    adds: true,
    measures: &[
        of("requests_running", &[&["ray_vllm_num_requests_running"]]),
        of("requests_waiting", &[&["ray_vllm_num_requests_waiting"]]),
        of("kv_cache_ratio", &[&["ray_vllm_kv_cache_usage_perc"], &["ray_vllm_gpu_cache_usage_perc"]]),
        of("preemptions_total", &[&["ray_vllm_num_preemptions_total"]]),
        of("requests_total", &[&["ray_vllm_request_success_total"]]),
        of("errors_total", &[&["ray_vllm_request_success_total"]]).is("finished_reason", &["error"]),
        of("prompt_tokens_total", &[&["ray_vllm_prompt_tokens_total"]]),
        of("generated_tokens_total", &[&["ray_vllm_generation_tokens_total"]]),
    ],
    histograms: &[
        called("ray_vllm_e2e_request_latency_seconds", "vllm:e2e_request_latency_seconds"),
        called("ray_vllm_time_to_first_token_seconds", "vllm:time_to_first_token_seconds"),
        called("ray_vllm_inter_token_latency_seconds", "vllm:inter_token_latency_seconds"),
        called("ray_vllm_time_per_output_token_seconds", "vllm:time_per_output_token_seconds"),
    ],
};

const SGLANG: Exporter = Exporter {
    name: "SGLang",
    table: "serve",
    names: SERVER,
    ranks: &["tp_rank", "pp_rank"],
    adds: true,
    measures: &[
        of("requests_running", &[&["sglang:num_running_reqs"]]),
        of("requests_waiting", &[&["sglang:num_queue_reqs"]]),
        of("kv_cache_ratio", &[&["sglang:token_usage"]]),
        of("preemptions_total", &[&["sglang:num_retracted_requests_total"]]),
        of("requests_total", &[&["sglang:num_requests_total"]]),
        of("prompt_tokens_total", &[&["sglang:prompt_tokens_total"]]),
        of("generated_tokens_total", &[&["sglang:generation_tokens_total"]]),
    ],
    histograms: &[
        seconds("sglang:e2e_request_latency_seconds"),
        seconds("sglang:time_to_first_token_seconds"),
        seconds("sglang:inter_token_latency_seconds"),
        seconds("sglang:time_per_output_token_seconds"),
        seconds("sglang:queue_time_seconds"),
    ],
};

const TGI: Exporter = Exporter {
    name: "TGI",
    table: "serve",
    names: SERVER,
    ranks: &[],
    adds: true,
    measures: &[
        of("requests_running", &[&["tgi_batch_current_size"]]),
        of("requests_waiting", &[&["tgi_queue_size"]]),
        // The series of failures is there from the first failure on.
        of("requests_total", &[&["tgi_request_success", "tgi_request_failure"], &["tgi_request_success"]]),
        // The others are the client's: it asked wrongly, or went away.
        of("errors_total", &[&["tgi_request_failure"]]).is("err", &["generation", "incomplete", "overloaded"]),
        of("prompt_tokens_total", &[&["tgi_request_input_length_sum"]]),
        of("generated_tokens_total", &[&["tgi_request_generated_tokens_sum"]]),
    ],
    histograms: &[
        seconds("tgi_request_duration"),
        seconds("tgi_request_queue_duration"),
        seconds("tgi_request_inference_duration"),
        seconds("tgi_request_mean_time_per_token_duration"),
    ],
};

const TRITON: Exporter = Exporter {
    name: "Triton",
    table: "serve",
    names: SERVER,
    ranks: &[],
    adds: true,
    measures: &[
        of("requests_running", &[&["nv_trt_llm_request_metrics"]]).is("request_type", &["scheduled"]),
        of("requests_waiting", &[&["nv_trt_llm_request_metrics"]]).is("request_type", &["waiting"]),
        of("requests_waiting", &[&["nv_inference_pending_request_count"]]),
        of("kv_cache_ratio", &[&["nv_trt_llm_kv_cache_block_metrics"]]).is("kv_cache_block_type", &["fraction"]),
        of(
            "requests_total",
            &[&["nv_inference_request_success", "nv_inference_request_failure"], &["nv_inference_request_success"]],
        ),
        of("errors_total", &[&["nv_inference_request_failure"]]).not("reason", &["CANCELED"]),
    ],
    histograms: &[millis("nv_inference_first_response_histogram_ms", "nv_inference_first_response_seconds")],
};

const LLAMA_CPP: Exporter = Exporter {
    name: "llama.cpp",
    table: "serve",
    names: SERVER,
    ranks: &[],
    adds: true,
    measures: &[
        of("requests_running", &[&["llamacpp:requests_processing"]]),
        of("requests_waiting", &[&["llamacpp:requests_deferred"]]),
        of("kv_cache_ratio", &[&["llamacpp:kv_cache_usage_ratio"]]),
        of("prompt_tokens_total", &[&["llamacpp:prompt_tokens_total"]]),
        of("generated_tokens_total", &[&["llamacpp:tokens_predicted_total"]]),
    ],
    histograms: &[],
};

const RAY_SERVE: Exporter = Exporter {
    name: "Ray Serve",
    table: "serve",
    names: &[
        name(
            "service",
            &[Word::Label(&["job"]), Word::After("/", &["application"]), Word::After("/", &["deployment"])],
        ),
        name("replica", &[Word::Label(&["replica"])]),
        name("host", &[Word::Host(&[])]),
        name("model", &[Word::Label(&["model_name"])]),
    ],
    ranks: &[],
    adds: true,
    measures: &[
        of("requests_running", &[&["ray_serve_replica_processing_queries"]]),
        of(
            "requests_total",
            &[&["ray_serve_deployment_request_counter_total"], &["ray_serve_deployment_request_counter"]],
        ),
        of("errors_total", &[&["ray_serve_deployment_error_counter_total"], &["ray_serve_deployment_error_counter"]]),
    ],
    histograms: &[millis(
        "ray_serve_deployment_processing_latency_ms",
        "ray_serve_deployment_processing_latency_seconds",
    )],
};

const RAY_DATA: Exporter = Exporter {
    name: "Ray Data",
    table: "data_job",
    names: &[
        name("job", &[Word::Label(&["job"]), Word::Text("/"), Word::Label(&["dataset"])]),
        name("stage", &[Word::Label(&["operator"])]),
    ],
    ranks: &[],
    adds: true,
    measures: &[
        of("records_in_total", &[&["ray_data_num_row_inputs_received"]]),
        of("records_out_total", &[&["ray_data_rows_task_outputs_generated"]]),
        // What runs or has ended: whether those that failed are among the others does not matter so.
        of("tasks_total", &[&["ray_data_num_tasks_running", "ray_data_num_tasks_finished"]]),
        of("tasks_done", &[&["ray_data_num_tasks_finished"]]),
        of("tasks_failed", &[&["ray_data_num_tasks_failed"]]),
    ],
    histograms: &[],
};

const FLINK_JOB: Word = Word::Label(&["job_name"]);

/// A subtask is a stage of its own: those of a task are on several machines, and no scrape has them all to add them up.
const FLINK_TASK: Exporter = Exporter {
    name: "Flink, a subtask",
    table: "data_job",
    names: &[
        name("job", &[Word::Label(&["job"]), Word::Text("/"), FLINK_JOB]),
        name("stage", &[Word::Label(&["task_name"]), Word::After("/", &["subtask_index"])]),
        name("host", &[Word::Host(&["host"])]),
    ],
    ranks: &[],
    adds: true,
    measures: &[
        of("records_in_total", &[&["flink_taskmanager_job_task_numRecordsIn"]]),
        of("records_out_total", &[&["flink_taskmanager_job_task_numRecordsOut"]]),
        of("lag_records", &[&["flink_taskmanager_job_task_operator_pendingRecords"]]),
        Measure {
            how: How::MillisAgo,
            ..of("watermark_lag_seconds", &[&["flink_taskmanager_job_task_currentInputWatermark"]])
        },
    ],
    histograms: &[],
};

const FLINK: Exporter = Exporter {
    name: "Flink, a job",
    table: "data_job",
    names: &[
        name("job", &[Word::Label(&["job"]), Word::Text("/"), FLINK_JOB]),
        name("stage", &[Word::Text("jobmanager")]),
        name("host", &[Word::Host(&["host"])]),
    ],
    ranks: &[],
    adds: true,
    measures: &[of("restarts_total", &[&["flink_jobmanager_job_numRestarts"], &["flink_jobmanager_job_fullRestarts"]])],
    histograms: &[],
};

/// An executor is a stage of its own: one that is lost takes its counts along, and a sum would fall.
const SPARK: Exporter = Exporter {
    name: "Spark, an executor",
    table: "data_job",
    names: &[
        name("job", &[Word::Label(&["job"]), Word::Text("/"), Word::Label(&["application_name", "application_id"])]),
        name("stage", &[Word::Text("executor-"), Word::Label(&["executor_id"])]),
    ],
    ranks: &[],
    adds: true,
    measures: &[
        // Not its totalTasks: those that failed are in it for ever, and look as if they still had to be done.
        of(
            "tasks_total",
            &[
                &["metrics_executor_activeTasks", "metrics_executor_completedTasks_total"],
                &["metrics_executor_activeTasks_Count", "metrics_executor_completedTasks_Count"],
            ],
        ),
        of("tasks_done", &[&["metrics_executor_completedTasks_total"], &["metrics_executor_completedTasks_Count"]]),
        of("tasks_failed", &[&["metrics_executor_failedTasks_total"], &["metrics_executor_failedTasks_Count"]]),
    ],
    histograms: &[],
};

/// Bytes of a MiB, as DCGM counts memory.
const MIB: f64 = 1_048_576.0;
/// Percent as ratio.
const PERCENT: f64 = 0.01;

/// DCGM's exporter. A GPU that pods share is told of once for each of them: the same value, which is not added.
pub const DCGM: Exporter = Exporter {
    name: "DCGM",
    table: "gpu",
    names: &[
        name("host", &[Word::Host(&["Hostname", "hostname"])]),
        name("gpu_uuid", &[Word::Label(&["UUID", "uuid", "gpu_uuid"])]),
        name("mig_uuid", &[Word::After("GI-", &["GPU_I_ID"])]),
        name("gpu_index", &[Word::Label(&["gpu"])]),
        name("gpu_name", &[Word::Label(&["modelName", "model_name"])]),
        name("pci_bus_id", &[Word::Label(&["pci_bus_id"])]),
        name("job", &[Word::Label(&["hpc_job"])]),
    ],
    ranks: &[],
    adds: false,
    measures: &[
        of("utilization_ratio", &[&["DCGM_FI_DEV_GPU_UTIL"]]).times(PERCENT),
        of("memory_controller_ratio", &[&["DCGM_FI_DEV_MEM_COPY_UTIL"]]).times(PERCENT),
        of("sm_active_ratio", &[&["DCGM_FI_PROF_SM_ACTIVE"]]),
        of("tensor_active_ratio", &[&["DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"]]),
        of("memory_used_bytes", &[&["DCGM_FI_DEV_FB_USED"]]).times(MIB),
        of(
            "memory_total_bytes",
            &[
                &["DCGM_FI_DEV_FB_TOTAL"],
                &["DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_FB_RESERVED"],
                &["DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE"],
            ],
        )
        .times(MIB),
        of("temperature_celsius", &[&["DCGM_FI_DEV_GPU_TEMP"]]),
        of("memory_temperature_celsius", &[&["DCGM_FI_DEV_MEMORY_TEMP"]]),
        of("temperature_slowdown_celsius", &[&["DCGM_FI_DEV_SLOWDOWN_TEMP"]]),
        of("power_watts", &[&["DCGM_FI_DEV_POWER_USAGE"]]),
        of("power_limit_watts", &[&["DCGM_FI_DEV_ENFORCED_POWER_LIMIT"], &["DCGM_FI_DEV_POWER_MGMT_LIMIT"]]),
        of("energy_joules_total", &[&["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"]]).times(0.001),
        of("sm_clock_mhz", &[&["DCGM_FI_DEV_SM_CLOCK"]]),
        of("sm_clock_max_mhz", &[&["DCGM_FI_DEV_MAX_SM_CLOCK"]]),
        of("memory_clock_mhz", &[&["DCGM_FI_DEV_MEM_CLOCK"]]),
        of("fan_ratio", &[&["DCGM_FI_DEV_FAN_SPEED"]]).times(PERCENT),
        of("performance_state", &[&["DCGM_FI_DEV_PSTATE"]]),
        of("throttle_reasons", &[&["DCGM_FI_DEV_CLOCKS_EVENT_REASONS"], &["DCGM_FI_DEV_CLOCK_THROTTLE_REASONS"]]),
        of(
            "throttle_power_ns_total",
            &[&["DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP_NS"], &["DCGM_FI_DEV_POWER_VIOLATION"]],
        ),
        of("throttle_thermal_sw_ns_total", &[&["DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS"]]),
        of("throttle_thermal_hw_ns_total", &[&["DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS"]]),
        of("throttle_brake_ns_total", &[&["DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS"]]),
        of("ecc_uncorrected_volatile_total", &[&["DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"]]),
        of("ecc_corrected_volatile_total", &[&["DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"]]),
        of("ecc_uncorrected_aggregate_total", &[&["DCGM_FI_DEV_ECC_DBE_AGG_TOTAL"]]),
        of("ecc_corrected_aggregate_total", &[&["DCGM_FI_DEV_ECC_SBE_AGG_TOTAL"]]),
        of("remapped_rows_uncorrected", &[&["DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS"]]),
        of("remapped_rows_corrected", &[&["DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS"]]),
        of("remap_pending", &[&["DCGM_FI_DEV_ROW_REMAP_PENDING"]]),
        of("remap_failed", &[&["DCGM_FI_DEV_ROW_REMAP_FAILURE"]]),
        of("retired_pages_pending", &[&["DCGM_FI_DEV_RETIRED_PENDING"]]),
        of("pcie_generation", &[&["DCGM_FI_DEV_PCIE_LINK_GEN"]]),
        of("pcie_generation_max", &[&["DCGM_FI_DEV_PCIE_MAX_LINK_GEN"]]),
        of("pcie_width", &[&["DCGM_FI_DEV_PCIE_LINK_WIDTH"]]),
        of("pcie_width_max", &[&["DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH"]]),
        of("pcie_replays_total", &[&["DCGM_FI_DEV_PCIE_REPLAY_COUNTER"]]),
        of(
            "nvlink_crc_errors_total",
            &[
                &["DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL"],
                &["DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL"],
            ],
        ),
        of("nvlink_replays_total", &[&["DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL"]]),
        of("nvlink_recoveries_total", &[&["DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL"]]),
    ],
    histograms: &[],
};

/// The last XID of a GPU, which DCGM goes on showing.
pub const DCGM_XID: &str = "DCGM_FI_DEV_XID_ERRORS";

/// All of them.
pub const EXPORTERS: &[Exporter] =
    &[VLLM, RAY_VLLM, SGLANG, TGI, TRITON, LLAMA_CPP, RAY_SERVE, RAY_DATA, FLINK_TASK, FLINK, SPARK, DCGM];
