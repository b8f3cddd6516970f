// The same task with River, over Postgres (DATABASE_URL). Its tables are made once, by
// `river migrate-up`.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
)

type ResizeArgs struct {
	URL   string `json:"url" river:"unique"`
	Width int    `json:"width"`
}

func (ResizeArgs) Kind() string { return "resize-image" }

type Thumb struct {
	Key string `json:"key"`
}

func resizeImage(ctx context.Context, job *river.Job[ResizeArgs]) error {
	return river.RecordOutput(ctx, Thumb{Key: fmt.Sprintf("%s@%d", job.Args.URL, job.Args.Width)})
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()

	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(resizeImage))
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		JobTimeout: 30 * time.Second,
		Queues:     map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 8}},
		Workers:    workers,
	})
	if err != nil {
		return err
	}
	if err := client.Start(ctx); err != nil {
		return err
	}
	defer client.Stop(ctx)

	inserted, err := client.Insert(ctx, ResizeArgs{URL: "https://example.org/cat.png", Width: 320}, &river.InsertOpts{
		MaxAttempts: 5,
		ScheduledAt: time.Now().Add(5 * time.Second),
		UniqueOpts:  river.UniqueOpts{ByArgs: true},
	})
	if err != nil {
		return err
	}

	// River keeps a job's output on its row, and has no call that waits for it.
	job := inserted.Job
	for job.State != rivertype.JobStateCompleted {
		if job.FinalizedAt != nil {
			return fmt.Errorf("job %d is %s", job.ID, job.State)
		}
		time.Sleep(500 * time.Millisecond)
		if job, err = client.JobGet(ctx, job.ID); err != nil {
			return err
		}
	}
	var thumb Thumb
	if err := json.Unmarshal(job.Output(), &thumb); err != nil {
		return err
	}
	fmt.Println(thumb.Key)
	return nil
}
