// Package manifests tests the files of docs/cluster as Kubernetes and systemd read them.
package manifests

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const (
	root   = "../.."
	folder = root + "/docs/cluster"
)

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// isProgram reports whether the image has a program.
func isProgram(name string) bool {
	for _, dir := range []string{"stages", "pipelines"} {
		if _, err := os.Stat(filepath.Join(root, dir, name, "main.go")); err == nil {
			return true
		}
	}
	return false
}

// objects decodes kubernetes.yml. A field that its kind does not have is an error.
func objects(t *testing.T) (pods map[string]core.PodSpec, settings core.ConfigMap, service core.Service,
	servers apps.StatefulSet) {
	t.Helper()
	pods = map[string]core.PodSpec{}
	for _, text := range strings.Split(read(t, folder, "kubernetes.yml"), "\n---\n") {
		var kind struct{ Kind string }
		if err := yaml.Unmarshal([]byte(text), &kind); err != nil {
			t.Fatal(err)
		}
		var deployment apps.Deployment
		var job batch.Job
		known := map[string]any{"Service": &service, "PodDisruptionBudget": &policy.PodDisruptionBudget{},
			"StatefulSet": &servers, "ConfigMap": &settings, "Job": &job, "Deployment": &deployment}
		into, ok := known[kind.Kind]
		if !ok {
			t.Fatalf("kind %q", kind.Kind)
		}
		if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
			t.Errorf("%s: %v", kind.Kind, err)
		}
		switch kind.Kind {
		case "StatefulSet":
			pods[servers.Name] = servers.Spec.Template.Spec
		case "Job":
			pods[job.Name] = job.Spec.Template.Spec
		case "Deployment":
			pods[deployment.Name] = deployment.Spec.Template.Spec
		}
	}
	return pods, settings, service, servers
}

func TestKubernetes(t *testing.T) {
	pods, settings, service, servers := objects(t)
	if len(pods) != 3 {
		t.Fatalf("%d kinds of pods, want 3", len(pods))
	}
	if servers.Spec.ServiceName != service.Name || service.Spec.ClusterIP != core.ClusterIPNone {
		t.Errorf("the servers have no names of their own: service %s", service.Name)
	}
	for i := range *servers.Spec.Replicas {
		host := servers.Name + "-" + string(rune('0'+i)) + "." + service.Name
		if !strings.Contains(settings.Data["NATS_URL"], "tls://"+host+":4222") {
			t.Errorf("NATS_URL lacks the server %s", host)
		}
		if want := "--host " + host; !strings.Contains(read(t, root, "docs/cluster.md"), want) {
			t.Errorf("docs/cluster.md does not make the files of a server: %s", want)
		}
	}
	version := regexp.MustCompile(`nats-io/nats-server/v2 v(\S+)`).FindStringSubmatch(read(t, root, "go.mod"))[1]
	for name, pod := range pods {
		volumes := []string{"data"} // of servers, a claim
		for _, v := range pod.Volumes {
			volumes = append(volumes, v.Name)
		}
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			for _, m := range c.VolumeMounts {
				if !slices.Contains(volumes, m.Name) {
					t.Errorf("%s: there is no volume %s", name, m.Name)
				}
			}
			switch program := c.Command[0]; {
			case name == servers.Name && c.Image != "nats:"+version+"-alpine":
				t.Errorf("image %s, and the project has nats-server %s", c.Image, version)
			case name != servers.Name && !isProgram(program):
				t.Errorf("%s: there is no program %s", name, program)
			case program == "nats-server" && !slices.Equal(c.Command[1:], []string{"-c", "$(NODE).nats.conf"}):
				t.Errorf("the server is not started as the files of pipeline users say: %q", c.Command)
			}
			if s := c.SecurityContext; s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation {
				t.Errorf("%s may gain privileges", name)
			}
		}
	}
}

func TestContainerfile(t *testing.T) {
	text := read(t, folder, "Containerfile")
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, root, "go.mod"))[1]
	if !strings.Contains(text, "FROM golang:"+version+" AS build") {
		t.Errorf("it does not build with Go %s", version)
	}
	known := "FROM WORKDIR COPY RUN ENV USER CMD"
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		word, _, _ := strings.Cut(line, " ")
		if word != "" && word != "#" && !strings.Contains(known, word) {
			t.Errorf("instruction %q", line)
		}
	}
	build := regexp.MustCompile(`(?m)^RUN CGO_ENABLED=0 (go build .*)$`).FindStringSubmatch(text)
	if build == nil {
		t.Fatal("nothing is built")
	}
	words := strings.Fields(build[1])
	words[slices.Index(words, "-o")+1] = t.TempDir() + "/"
	cmd := exec.Command(words[0], slices.Insert(words[1:], 1, "-n")...) // says what it would do
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("/tokenize")) ||
		!bytes.Contains(out, []byte("/pipeline")) {
		t.Errorf("%v: %v\n%s", words, err, out[:min(len(out), 2000)])
	}
}

// systemd-analyze reads the units as systemd does, where there is one. Its programs are to be there.
func TestUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("there is no systemd-analyze")
	}
	for _, name := range []string{"nats.service", "bitnet1@.service"} {
		text := read(t, folder, name)
		if name == "nats.service" && !strings.Contains(text, "nats-server -c %H.conf\n") {
			t.Errorf("the server is not started as the files of pipeline users say:\n%s", text)
		}
		text = regexp.MustCompile(`(?m)^ExecStart=\S+`).ReplaceAllString(text, "ExecStart=/bin/true")
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput()
		if err != nil || bytes.Contains(out, []byte(name)) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
