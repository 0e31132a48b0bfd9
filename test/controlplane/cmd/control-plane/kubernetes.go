// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // as kube-apiserver's own main does: --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // as kube-apiserver's own main does: client metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // as kube-apiserver's own main does: version metric
	kubectlcmd "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserverapp "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func apiserver() int {
	return cli.Run(apiserverapp.NewAPIServerCommand())
}

func kubectl() int {
	if err := cli.RunNoErrOutput(kubectlcmd.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err) // prints the error as kubectl does, and exits
	}
	return 0
}
