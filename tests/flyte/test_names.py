"""Each public name of Flyte 2.12 can be imported; a name that needs a cluster says so in one sentence when used."""

from __future__ import annotations

import importlib
import types

import pytest

from perdure.errors import UsageError
from perdure.flyte._absent import Absent

NAMES = {
    "flyte": """
        AMD_GPU APPLE_SILICON GPU HABANA_GAUDI TPU AppHandle AsyncFunctionTaskTemplate Backoff
        BaseCheckpoint Cache CachePolicy CacheRequest Checkpoint ConditionWebhook Cron Device
        DeviceClass Documentation Environment FixedRate Image ImageBuild Link Neuron OnArtifact
        PodTemplate Resources RetryStrategy ReusePolicy Secret SecretRequest TaskEnvironment
        TaskTemplate Timeout TimeoutType Trigger TriggerTime TriggeredArtifact TriggeredPartition
        __version__ build build_images ctx current_domain current_project custom_context deploy
        get_custom_context group init init_from_api_key init_from_config init_in_cluster
        init_passthrough is_control_plane_available latest_checkpoint load_interactive_ctx
        load_plugin_config logger map new_condition rerun run run_python_script serve system_logger
        trace version with_runcontext with_servecontext
    """,
    "flyte.io": """
        PARQUET DataFrame Dir EmptyDir File HashFunction
    """,
    "flyte.errors": """
        ActionAbortedError ActionNotFoundError AppleSiliconBridgeUnreachableError
        AppleSiliconDaemonOOMError AppleSiliconDaemonStartFailedError AppleSiliconError
        AppleSiliconHostExecFailedError AppleSiliconModelNotFoundError AppleSiliconNotAvailableError
        BaseRuntimeError CodeBundleError ConditionAlreadyExistsError ConditionFailedError
        ConditionNotFoundError ConditionTimedoutError CustomError DeadlineExceededError DeploymentError
        GPUFaultError GPUFaultSystemError GPUFaultUserError ImageBuildError ImagePullBackOffError
        InitializationError InlineIOMaxBytesBreached InvalidImageNameError InvalidPackageError
        LogsNotYetAvailableError MaxQueuedTimeExceededError MaxRuntimeExceededError ModuleLoadError
        NonRecoverableError NotInTaskContextError OOMError OnlyAsyncIOSupportedError
        ParameterMaterializationError PrimaryContainerNotFoundError RemoteTaskNotFoundError
        RemoteTaskUsageError ResourceExhaustedError RestrictedTypeError RetriesExhaustedError
        RuntimeDataValidationError RuntimeSystemError RuntimeUnknownError RuntimeUserError SlowDownError
        SyncTaskCallInAsyncContextError TaskInterruptedError TaskTimeoutError
        TraceDoesNotAllowNestedTasksError UnionRpcError silence_polling_error
    """,
    "flyte.extras": """
        BatchStats ContainerTask CostEstimator DynamicBatcher Prompt Sleep SleepTask TokenBatcher
        TokenEstimator model_streamer serialize serialize_env shell webhooks
    """,
    "flyte.report": """
        Report Timeline abbreviate current_report duration_ms flush get_tab log replace
    """,
    "flyte.durable": """
        now sleep time
    """,
    "flyte.types": """
        FlytePickle Renderable TypeEngine TypeTransformer TypeTransformerFailedError guess_interface
        literal_string_repr
    """,
    "flyte.storage": """
        ABFS GCS S3 Storage exists exists_sync get get_configured_fsspec_kwargs
        get_random_local_directory get_random_local_path get_stream get_underlying_filesystem is_remote
        join open put put_stream
    """,
    "flyte.syncify": """
        Syncify syncify
    """,
    "flyte.config": """
        Config auto get_config_file set_if_exists
    """,
    "flyte.git": """
        GitStatus config_from_root
    """,
    "flyte.remote": """
        Action ActionDetails ActionInputs ActionOutputs App Artifact Condition PartitionSchema Project
        Run RunDetails Secret SecretTypes Settings Task TaskDetails TimeFilter Trigger TriggerDetails
        User auth_metadata upload_dir upload_file
    """,
    "flyte.models": """
        ActionID ActionPhase CallCounter CheckpointPaths CodeBundle Docstring GroupData
        NULL_TASK_CONTEXT NativeInterface PathRewrite RawDataPath SerializationContext TaskContext
        extract_return_annotation generate_random_name is_clustered_worker_env literal_to_enum
    """,
    "flyte.notify": """
        Email NamedDelivery NamedRule Notification Slack Teams Webhook
    """,
    "flyte.app": """
        AppEndpoint AppEnvironment ArtifactValue ConnectorEnvironment DeployedAppEnvironment Domain Link
        Parameter Port RunOutput Scaling Subdomain Timeouts ctx get_parameter
    """,
    "flyte.ai.agents": """
        AccessDenied Agent AgentEvent AgentProtocol AgentResult AgentTool ConcurrencyError LLMCallable
        LLMMessage MCPServerSpec MemoryMeta MemoryStore MemoryStoreError ToolCallHandler ToolFn
        agent_progress_cb tool
    """,
    "flyte.ai.chat": """
        CHAT_HTML_TEMPLATE CUSTOM_THEME_CSS_TEMPLATE DEFAULT_CSS AgentChatAppEnvironment CustomTheme
        build_chat_html
    """,
    "flyte.artifacts": """
        KIND_KEY MAX_PARENTS Artifact ArtifactKey ArtifactVersionId Card CardFormat CardType Granularity
        Kind Metadata TimePartition new produces
    """,
    "flyte.clustered": """
        ClusterFailurePolicy ClusteredTaskEnvironment ClusteredTaskTemplate JaxRun Runtime TorchRun
        jax_initialize
    """,
    "flyte.extend": """
        PRIMARY_CONTAINER_DEFAULT_NAME Architecture AsyncFunctionTaskTemplate ImageBuildEngine
        ImageBuilder ImageChecker RuntimeTaskTemplate TaskPluginRegistry TaskTemplate
        download_code_bundle get_proto_extended_resources get_proto_resources is_initialized lazy_module
        pod_spec_from_resources
    """,
    "flyte.prefetch": """
        HuggingFaceModelInfo ShardConfig StoredModelInfo VLLMShardArgs hf_model
    """,
    "flyte.sandbox": """
        ORCHESTRATOR_SYNTAX_PROMPT CodeTaskTemplate ImageConfig SandboxedConfig SandboxedTaskTemplate
        create orchestrate_local orchestrator_from_str sandbox_environment
    """,
    "flyte.app.extras": """
        FastAPIAppEnvironment FastAPIPassthroughAuthMiddleware FlyteWebhookAppEnvironment
    """,
    "flyte.extras.shell": """
        DictMode FlagSpec Glob OutputSpec Stderr Stdout create listMode
    """,
    "flyte.io.extend": """
        DataFrameDecoder DataFrameEncoder DataFrameTransformerEngine
    """,
}
EACH = [(module, name) for module, names in NAMES.items() for name in names.split()]


@pytest.mark.parametrize("module", NAMES)
def test_each_public_name_can_be_imported(module: str) -> None:
    importlib.import_module("perdure.flyte")
    found = importlib.import_module(module)
    missing = [name for name in NAMES[module].split() if not hasattr(found, name)]
    assert not missing


def test_an_absent_name_says_so_in_one_sentence() -> None:
    absent = 0
    for module, name in EACH:
        value = getattr(importlib.import_module(module.replace("flyte", "perdure.flyte", 1)), name)
        if not isinstance(value, Absent):
            continue
        absent += 1
        assert value | None is not None  # an annotation that mentions the name stays possible
        for use in (value, lambda value=value: value.anything, lambda value=value: types.new_class("Sub", (value,))):
            with pytest.raises(UsageError, match=rf"^{module}\.{name}[.a-z]* is absent in perdure: [^.]+"):
                use()
    assert absent
