// A plugin of NRI for tests, made with containerd's own stub: it prints what it is told, one JSON line each,
// and answers as its flags say. On its input, one line each, updates that it asks for unasked.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

var (
	socket = flag.String("socket", "", "where the runtime listens")
	name   = flag.String("name", "test", "the plugin's name")
	index  = flag.String("index", "10", "its two digits")
	adjust = flag.String("adjust", "", "a ContainerAdjustment for containers called adjusted*, as JSON")
	update = flag.String("update", "", "a ContainerUpdate to answer CreateContainer with, as JSON")
	limit  = flag.String("limit", "", "LinuxResources to answer UpdateContainer with, as JSON")
	refuse = flag.String("refuse", "", "the event to refuse")
	hold   = flag.String("hold", "", "the event not to answer")
	reject = flag.Bool("reject", false, "reject adjustments of others")
)

type plugin struct{ lock sync.Mutex }

type told struct {
	Event      string   `json:"event"`
	Pod        string   `json:"pod,omitempty"`
	Container  string   `json:"container,omitempty"`
	State      string   `json:"state,omitempty"`
	Env        []string `json:"env,omitempty"`
	Args       []string `json:"args,omitempty"`
	Mounts     []string `json:"mounts,omitempty"`
	IPs        []string `json:"ips,omitempty"`
	Netns      string   `json:"netns,omitempty"`
	Shares     uint64   `json:"shares,omitempty"`
	Pods       []string `json:"pods,omitempty"`
	Containers []string `json:"containers,omitempty"`
	Failed     int      `json:"failed"`
	Error      string   `json:"error,omitempty"`
}

func (p *plugin) tell(t told) error {
	p.lock.Lock()
	line, _ := json.Marshal(t)
	fmt.Println(string(line))
	p.lock.Unlock()
	if *hold == t.Event {
		time.Sleep(time.Hour)
	}
	if *refuse == t.Event {
		return errors.New("refused by the test")
	}
	return nil
}

func about(event string, pod *api.PodSandbox, c *api.Container) told {
	t := told{Event: event, Pod: pod.GetId(), IPs: pod.GetIps(), Container: c.GetId()}
	for _, n := range pod.GetLinux().GetNamespaces() {
		if n.GetType() == "network" {
			t.Netns = n.GetPath()
		}
	}
	if c != nil {
		t.State, t.Env, t.Args = c.GetState().String(), c.GetEnv(), c.GetArgs()
		t.Shares = c.GetLinux().GetResources().GetCpu().GetShares().GetValue()
		for _, m := range c.GetMounts() {
			t.Mounts = append(t.Mounts, m.GetDestination())
		}
	}
	return t
}

func parse[M proto.Message](text string, into M) M {
	if err := protojson.Unmarshal([]byte(text), into); err != nil {
		panic(err)
	}
	return into
}

func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, cs []*api.Container) ([]*api.ContainerUpdate, error) {
	t := told{Event: "Synchronize"}
	for _, pod := range pods {
		t.Pods = append(t.Pods, pod.GetId())
	}
	for _, c := range cs {
		t.Containers = append(t.Containers, c.GetId())
		t.Env, t.Args, t.State = c.GetEnv(), c.GetArgs(), c.GetState().String()
		for _, m := range c.GetMounts() {
			t.Mounts = append(t.Mounts, m.GetDestination())
		}
	}
	return nil, p.tell(t)
}

func (p *plugin) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.tell(about("RunPodSandbox", pod, nil))
}

func (p *plugin) UpdatePodSandbox(_ context.Context, pod *api.PodSandbox, _, _ *api.LinuxResources) error {
	return p.tell(about("UpdatePodSandbox", pod, nil))
}

func (p *plugin) PostUpdatePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.tell(about("PostUpdatePodSandbox", pod, nil))
}

func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.tell(about("StopPodSandbox", pod, nil))
}

func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.tell(about("RemovePodSandbox", pod, nil))
}

func (p *plugin) CreateContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	var change *api.ContainerAdjustment
	var updates []*api.ContainerUpdate
	if *adjust != "" && strings.HasPrefix(c.GetName(), "adjusted") {
		change = parse(*adjust, &api.ContainerAdjustment{})
	}
	if *update != "" {
		updates = append(updates, parse(*update, &api.ContainerUpdate{}))
	}
	return change, updates, p.tell(about("CreateContainer", pod, c))
}

func (p *plugin) PostCreateContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) error {
	return p.tell(about("PostCreateContainer", pod, c))
}

func (p *plugin) StartContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) error {
	return p.tell(about("StartContainer", pod, c))
}

func (p *plugin) PostStartContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) error {
	return p.tell(about("PostStartContainer", pod, c))
}

func (p *plugin) UpdateContainer(_ context.Context, pod *api.PodSandbox, c *api.Container, _ *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	var updates []*api.ContainerUpdate
	if *limit != "" {
		r := parse(*limit, &api.LinuxResources{})
		updates = append(updates, &api.ContainerUpdate{ContainerId: c.GetId(), Linux: &api.LinuxContainerUpdate{Resources: r}})
	}
	return updates, p.tell(about("UpdateContainer", pod, c))
}

func (p *plugin) PostUpdateContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) error {
	return p.tell(about("PostUpdateContainer", pod, c))
}

func (p *plugin) StopContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) ([]*api.ContainerUpdate, error) {
	return nil, p.tell(about("StopContainer", pod, c))
}

func (p *plugin) RemoveContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) error {
	return p.tell(about("RemoveContainer", pod, c))
}

func (p *plugin) ValidateContainerAdjustment(_ context.Context, r *api.ValidateContainerAdjustmentRequest) error {
	if *reject && len(r.GetAdjust().GetEnv()) > 0 {
		return fmt.Errorf("no variables of %v", r.GetOwners().GetOwners())
	}
	return nil
}

func (p *plugin) Shutdown(context.Context) {
	_ = p.tell(told{Event: "Shutdown"})
}

func main() {
	flag.Parse()
	p := &plugin{}
	gone := stub.WithOnClose(func() { _ = p.tell(told{Event: "Closed"}) })
	s, err := stub.New(p, stub.WithSocketPath(*socket), stub.WithPluginName(*name), stub.WithPluginIdx(*index), gone)
	if err != nil {
		panic(err)
	}
	if err := s.Start(context.Background()); err != nil {
		_ = p.tell(told{Event: "NotStarted", Error: err.Error()})
		os.Exit(1)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		failed, err := s.UpdateContainers([]*api.ContainerUpdate{parse(lines.Text(), &api.ContainerUpdate{})})
		t := told{Event: "Updated", Failed: len(failed)}
		if err != nil {
			t.Error = err.Error()
		}
		_ = p.tell(t)
	}
}
