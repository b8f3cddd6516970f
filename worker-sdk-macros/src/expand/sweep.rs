#[allow(clippy::unused_async)]
/// Sweeps.
async fn sweep() -> Result<(), TaskError> {
    Ok(())
}

/// Sweeps.
#[allow(non_camel_case_types)]
struct sweep {}

impl ::bellows_sdk::TaskDefinition for sweep {
    const NAME: &'static str = "sweep";
    type Callback = <Result<(), TaskError> as ::bellows_sdk::HandlerOutput>::Callback;
    type Trigger = ::bellows_sdk::SingletonTrigger;
}

impl ::bellows_sdk::TaskHandler for sweep {
    fn settings() -> ::bellows_sdk::TaskSettings {
        ::bellows_sdk::TaskSettings::new()
    }

    async fn handle(
        _context: ::bellows_sdk::TaskContext,
        (): (),
        _states: ::bellows_sdk::States,
    ) -> ::bellows_sdk::TaskResult<Self::Callback> {
        ::bellows_sdk::HandlerOutput::into_result(sweep().await)
    }
}
