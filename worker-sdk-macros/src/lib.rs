//! The `#[task]` attribute of `bellows-sdk`, which documents it: an async function
//! becomes a kind of work.
//!
//! `options` reads the words in the brackets, `handler` the function's signature, `values`
//! checks what is written, `expand` writes the result. None of them knows the registry; that
//! `values` and the registry agree is tested.

mod expand;
mod handler;
mod options;
mod values;

use proc_macro::TokenStream;

/// Makes a kind of work of an async function. See the guide *Tasks by attribute*.
///
/// ```ignore
/// #[task(name = "resize-image", timeout = "30s", max_attempts = 8, concurrency = 16)]
/// async fn resize_image(input: Resize, ctx: TaskContext, db: State<Db>) -> Result<Thumb, TaskError> {
///     Ok(Thumb { key: db.save(ctx.task_id(), shrink(input)?).await? })
/// }
///
/// bellows_sdk::serve(tasks![resize_image].with_state(db)).await?;
/// bellows.publish::<resize_image>(Resize { url, width: 320 }).await?;
/// ```
///
/// # The function
///
/// One argument is the **input**: what a task carries (`Serialize + Deserialize`). In any
/// order beside it: a `TaskContext`, and any number of `State<T>`, each given to the
/// program's tasks by `with_state`. It returns `Result<C, E>`, where `C` is what a publisher
/// awaits (or `TaskSuccess<C>`), and `E` is `TaskError` or any error: that means *retry*.
///
/// # The options
///
/// | Option | Means | If not written |
/// |---|---|---|
/// | `name = "resize-image"` | the `metadata.name` of the TaskDefinition; what waiting tasks are stored under | required |
/// | `singleton` | exactly one task exists; the function takes no input | tasks are published |
/// | `timeout = "30s"` | an attempt fails after this time; 1 s to 24 h | `30s` |
/// | `max_attempts = 8` | a task is parked after so many failed attempts; 1 to 100 | 8 |
/// | `backoff(initial = "1s", factor = 2, max = "5m", jitter = "20%")` | the wait before the next attempt | as written here |
/// | `max_disruptions = 3` | a task is parked once so many workers were lost while it ran alone; 1 to 100 | 3 |
/// | `concurrency = 16` | tasks at once in one process; 1 to 1000 | 8 |
/// | `retention(succeeded = "10m", failed = "168h")` | how long results are kept | as written here |
/// | `blocking = true` | the function blocks its thread: each attempt runs on one of its own | attempts share the runtime's threads |
/// | `version = 3, upgrade(from_v1, from_v2)` | the payload's version, and how older ones become it | version 1 |
/// | `alias = "old-name"`, `alias("old", "older")` | names it had before, whose tasks it does too | none |
/// | `crate = path::to::bellows_sdk` | where the SDK is, if renamed | `::bellows_sdk` |
///
/// Durations are whole numbers with a unit: `"300ms"`, `"30s"`, `"5m"`, `"1h30m"`.
///
/// On a cluster the TaskDefinition counts; what it says differently from the attribute is
/// told at start-up. `serve` prints a fitting one when the program is started with
/// `--print-manifest`.
///
/// # What it expands to
///
/// The function stays as it is. Beside it: a type of the same name (`pub struct resize_image
/// {}`, so one identifier serves for both), with `TaskDefinition` and `TaskHandler`, and
/// `resize_image::publish(&bellows, input)`. All of it can be written by hand.
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::task(options.into(), &item.into()).into()
}
