// The clients that kubectl and kubelets have, driven at one streaming URL: client-go's executors over SPDY
// and WebSocket, and its port-forward over both. Says in one line of JSON what came of it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

var (
	mode     = flag.String("mode", "", "exec-spdy, exec-ws, forward-spdy, forward-ws")
	target   = flag.String("url", "", "the streaming URL")
	protocol = flag.String("protocol", "", "the only protocol to offer; empty = what the client offers by itself")
	input    = flag.String("stdin", "", "what is typed; empty = no standard input")
	fill     = flag.Int("fill", 0, "so many bytes are typed instead")
	tty      = flag.Bool("tty", false, "a terminal")
	size     = flag.String("size", "", "WIDTHxHEIGHT of the terminal")
	slow     = flag.Duration("slow", 0, "a pause before each read of the output")
	port     = flag.Int("port", 0, "the pod's port")
	parallel = flag.Int("parallel", 1, "connections at once")
	timeout  = flag.Duration("timeout", 50*time.Second, "after this the client gives up")
)

type answer struct {
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	Bytes  int    `json:"bytes"`
	Code   int    `json:"code"`
	Error  string `json:"error"`
}

func main() {
	flag.Parse()
	where, err := url.Parse(*target)
	if err != nil {
		panic(err)
	}
	var said answer
	switch *mode {
	case "exec-spdy", "exec-ws":
		said = run(where)
	case "forward-spdy", "forward-ws":
		said = forward(where)
	default:
		panic("no such mode")
	}
	line, err := json.Marshal(said)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

// once is a terminal that has one size.
type once struct{ size *remotecommand.TerminalSize }

func (o *once) Next() *remotecommand.TerminalSize {
	size := o.size
	o.size = nil
	return size
}

// counted keeps the beginning of what is written.
type counted struct {
	kept  bytes.Buffer
	total int
}

func (c *counted) Write(p []byte) (int, error) {
	time.Sleep(*slow)
	c.total += len(p)
	if c.kept.Len() < 1<<16 {
		c.kept.Write(p)
	}
	return len(p), nil
}

func run(where *url.URL) answer {
	config := &rest.Config{Host: where.Host}
	executor, err := executor(config, where)
	if err != nil {
		return answer{Error: err.Error(), Code: -1}
	}
	var stdout, stderr counted
	options := remotecommand.StreamOptions{Stdout: &stdout, Tty: *tty}
	if *input != "" {
		options.Stdin = strings.NewReader(*input)
	}
	if *fill > 0 {
		options.Stdin = io.LimitReader(endless{}, int64(*fill))
	}
	if !*tty {
		options.Stderr = &stderr
	}
	if *size != "" {
		var width, height uint16
		if _, err := fmt.Sscanf(*size, "%dx%d", &width, &height); err != nil {
			panic(err)
		}
		options.TerminalSizeQueue = &once{&remotecommand.TerminalSize{Width: width, Height: height}}
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	err = executor.StreamWithContext(ctx, options)
	said := answer{Stdout: stdout.kept.String(), Stderr: stderr.kept.String(), Bytes: stdout.total}
	if failed, ok := err.(exec.ExitError); ok && failed.Exited() {
		said.Code = failed.ExitStatus()
	} else if err != nil {
		said.Error, said.Code = err.Error(), -1
	}
	return said
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func executor(config *rest.Config, where *url.URL) (remotecommand.Executor, error) {
	if *mode == "exec-ws" {
		if *protocol != "" {
			return remotecommand.NewWebSocketExecutorForProtocols(config, "GET", where.String(), *protocol)
		}
		return remotecommand.NewWebSocketExecutor(config, "GET", where.String())
	}
	if *protocol == "" {
		return remotecommand.NewSPDYExecutor(config, "POST", where)
	}
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewSPDYExecutorForProtocols(transport, upgrader, "POST", where, *protocol)
}

// forward makes connections at once, says a line on each, and wants it back.
func forward(where *url.URL) answer {
	dialer, err := dialer(where)
	if err != nil {
		return answer{Error: err.Error(), Code: -1}
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	var told bytes.Buffer
	ports := []string{fmt.Sprintf(":%d", *port)}
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, ports, stop, ready, io.Discard, &told)
	if err != nil {
		return answer{Error: err.Error(), Code: -1}
	}
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		return answer{Error: fmt.Sprint(err), Code: -1}
	}
	local, err := forwarder.GetPorts()
	if err != nil {
		return answer{Error: err.Error(), Code: -1}
	}
	var all sync.WaitGroup
	var lock sync.Mutex
	var said answer
	for number := 0; number < *parallel; number++ {
		all.Add(1)
		go func() {
			defer all.Done()
			back, err := talk(local[0].Local, fmt.Sprintf("line %d\n", number))
			lock.Lock()
			defer lock.Unlock()
			said.Stdout, said.Bytes = back, said.Bytes+len(back)
			if err != nil {
				said.Error = err.Error()
			}
		}()
	}
	all.Wait()
	close(stop)
	if err := <-ended; err != nil && said.Error == "" {
		said.Error = err.Error()
	}
	return said
}

func talk(port uint16, line string) (string, error) {
	connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return "", err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(*timeout)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(connection, line); err != nil {
		return "", err
	}
	if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	back, err := io.ReadAll(connection)
	return string(back), err
}

func dialer(where *url.URL) (httpstream.Dialer, error) {
	config := &rest.Config{Host: where.Host}
	if *mode == "forward-ws" {
		return portforward.NewSPDYOverWebsocketDialer(where, config)
	}
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	return spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", where), nil
}

func init() {
	// Nothing but the answer belongs on the output.
	os.Stdin.Close()
}
