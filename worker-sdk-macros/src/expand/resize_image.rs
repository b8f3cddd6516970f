#[allow(clippy::unused_async)]
pub async fn resize_image(input: Resize, ctx: TaskContext, db: State<Db>) -> Result<Thumb, TaskError> {
    db.save(input).await
}

#[doc = "The task `resize-image`."]
#[allow(non_camel_case_types)]
pub struct resize_image {}

impl ::bellows_sdk::TaskDefinition for resize_image {
    const NAME: &'static str = "resize-image";
    type Callback = <Result<Thumb, TaskError> as ::bellows_sdk::HandlerOutput>::Callback;
    type Trigger = ::bellows_sdk::PublishTrigger<Resize>;
}

impl ::bellows_sdk::TaskHandler for resize_image {
    fn settings() -> ::bellows_sdk::TaskSettings {
        ::bellows_sdk::TaskSettings::new()
            .timeout(::bellows_sdk::spec::Span::secs(30u64))
            .max_attempts(8u32)
            .backoff_initial(::bellows_sdk::spec::Span::millis(300u64))
            .needs::<TaskContext>()
            .needs::<State<Db>>()
    }

    async fn handle(
        context: ::bellows_sdk::TaskContext,
        input: Resize,
        states: ::bellows_sdk::States,
    ) -> ::bellows_sdk::TaskResult<Self::Callback> {
        ::bellows_sdk::HandlerOutput::into_result(
            resize_image(
                input,
                <TaskContext as ::bellows_sdk::Injected>::take(&context, &states)?,
                <State<Db> as ::bellows_sdk::Injected>::take(&context, &states)?,
            )
            .await,
        )
    }
}

impl resize_image {
    /// Publishes a task: a builder that is a future.
    #[allow(dead_code)]
    pub fn publish(bellows: &::bellows_sdk::Bellows, input: Resize) -> ::bellows_sdk::Publish<'_, Self> {
        bellows.publish::<Self>(input)
    }
}
