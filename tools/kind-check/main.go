// Command kind-check says whether kind accepts a cluster configuration,
// without Docker: kind's own strict decoder and validation run, and the
// program stops where kind would begin to start containers.
//
// The packages that do this are internal to kind, so the check goes through
// its public door, with a stub named docker first on PATH.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kind/pkg/cluster"
	"sigs.k8s.io/kind/pkg/log"
)

const stubDocker = `#!/bin/sh
case "$1" in
ps) exit 0 ;;
info) echo '{"CgroupDriver":"systemd","CgroupVersion":"2","MemoryLimit":true,"PidsLimit":true,"CPUShares":true,"SecurityOptions":[]}' ;;
*) exit 1 ;;
esac
`

// accepted is a logger that notices the line kind prints once the
// configuration has passed decoding and validation.
type accepted struct {
	log.NoopLogger
	seen bool
}

func (a *accepted) notice(text string) {
	if strings.Contains(text, "Creating cluster ") {
		a.seen = true
	}
}

func (a *accepted) V(log.Level) log.InfoLogger { return infoLogger{a} }

type infoLogger struct{ to *accepted }

func (i infoLogger) Info(text string)                 { i.to.notice(text) }
func (i infoLogger) Infof(format string, args ...any) { i.to.notice(fmt.Sprintf(format, args...)) }
func (i infoLogger) Enabled() bool                    { return true }

func check(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kind-check-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "docker"), []byte(stubDocker), 0o755); err != nil {
		return err
	}
	if err := os.Setenv("PATH", dir+":"+os.Getenv("PATH")); err != nil {
		return err
	}
	logger := &accepted{}
	provider := cluster.NewProvider(cluster.ProviderWithDocker(), cluster.ProviderWithLogger(logger))
	err = provider.Create("", cluster.CreateWithRawConfig(raw),
		cluster.CreateWithKubeconfigPath(filepath.Join(dir, "kubeconfig")))
	if logger.seen {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("kind neither refused nor accepted the file")
	}
	return err
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: kind-check CONFIG.yaml")
		os.Exit(2)
	}
	if err := check(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "kind refuses %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
	fmt.Printf("kind accepts %s\n", os.Args[1])
}
