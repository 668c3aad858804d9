// flanneld with its vxlan backend and Kubernetes as its store, and no others: the whole program needs the client
// libraries of several clouds. The network list that flannel's CNI plugin would make of each call is written once.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"os"
	"path/filepath"
	"sync"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "who we are; the node is named by NODE_NAME")
	network := flag.String("net-config", "", "flannel's net-conf.json")
	wire := flag.String("iface", "eth0", "interface to other nodes")
	list := flag.String("cni-config", "", "network list to write")
	flag.Parse()
	ctx, running := context.Background(), sync.WaitGroup{}

	store, err := kube.NewSubnetManager(ctx, "", *kubeconfig, "flannel.alpha.coreos.com", *network, false)
	check("reach the API", err)
	config, err := store.GetNetworkConfig(ctx)
	check("read the network's configuration", err)
	stack, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	check("choose address families", err)
	outside, err := ipmatch.LookupExtIface(*wire, "", "", stack, ipmatch.PublicIPOpts{})
	check("find the interface to other nodes", err)
	kind, err := backend.NewManager(ctx, store, outside).GetBackend(config.BackendType)
	check("choose a backend", err)
	joined, err := kind.RegisterNetwork(ctx, &running, config)
	check("join the network", err)
	check("write the network list", write(*list, config.Network.String(), joined))
	log.Printf("node's pods: %s, MTU %d", joined.Lease().Subnet, joined.MTU())
	running.Add(1)
	go func() { joined.Run(ctx); running.Done() }()
	check("keep the lease", store.CompleteLease(ctx, joined.Lease(), &running))
	running.Wait()
}

func check(doing string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", doing, err)
	}
}

type object = map[string]any

// write makes the list whole before a runtime sees it.
func write(path, network string, joined backend.Network) error {
	subnet := joined.Lease().Subnet.String()
	content, err := json.MarshalIndent(object{"cniVersion": "1.0.0", "name": "cluster", "plugins": []object{
		{"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true, "mtu": joined.MTU(),
			"ipam": object{"type": "host-local", "ranges": [][]object{{{"subnet": subnet}}},
				"routes": []object{{"dst": network}}}},
		{"type": "portmap", "capabilities": object{"portMappings": true}},
	}}, "", "  ")
	if err != nil {
		return err
	}
	half := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(half, content, 0o644); err != nil {
		return err
	}
	return os.Rename(half, path)
}
