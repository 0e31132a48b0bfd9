#!/usr/bin/env bash
# Copyright The Operator Scaling Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Generates the deepcopy functions, the clientset, the listers and the informers of the example controller's API.
#
# Needs only Go. The generators come from k8s.io/code-generator, at the version that hack/tools/go.mod pins. They are built
# from the module cache: after `go -C hack/tools mod download` no network is needed.
set -o errexit -o nounset -o pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
module="$(cd "${root}" && go list -m)"
api="example-controller/pkg/apis"
group_version="samplecontroller/v1alpha1"
generated="example-controller/pkg/generated"
header="${root}/hack/tools/boilerplate.go.txt"

bin="$(mktemp -d)"
trap 'rm -rf "${bin}"' EXIT
go -C "${root}/hack/tools" build -o "${bin}/" \
  k8s.io/code-generator/cmd/{deepcopy-gen,client-gen,lister-gen,informer-gen}

cd "${root}"
# Also remove generated files that no longer have a source.
rm -rf "${generated}"
rm -f "${api}/${group_version}/zz_generated.deepcopy.go"

"${bin}/deepcopy-gen" \
  --go-header-file "${header}" \
  --output-file zz_generated.deepcopy.go \
  "${module}/${api}/${group_version}"

"${bin}/client-gen" \
  --go-header-file "${header}" \
  --clientset-name versioned \
  --input-base "${root}/${api}" \
  --input "${group_version}" \
  --output-dir "${generated}/clientset" \
  --output-pkg "${module}/${generated}/clientset"

"${bin}/lister-gen" \
  --go-header-file "${header}" \
  --output-dir "${generated}/listers" \
  --output-pkg "${module}/${generated}/listers" \
  "${module}/${api}/${group_version}"

"${bin}/informer-gen" \
  --go-header-file "${header}" \
  --versioned-clientset-package "${module}/${generated}/clientset/versioned" \
  --listers-package "${module}/${generated}/listers" \
  --output-dir "${generated}/informers" \
  --output-pkg "${module}/${generated}/informers" \
  "${module}/${api}/${group_version}"
