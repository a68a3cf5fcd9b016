{{/* Names and labels, the same in every template. */}}

{{- define "muster.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "muster" .Release.Name -}}
{{- .Release.Name | replace "." "-" | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-muster" (.Release.Name | replace "." "-" | trunc 33 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of a component: (list . "scheduler"). */}}
{{- define "muster.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: muster
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of an object of a component. */}}
{{- define "muster.labels" -}}
{{- $root := index . 0 -}}
{{ include "muster.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The label that lets a pod through to this release. */}}
{{- define "muster.clientLabel" -}}
{{- printf "%s-client" (include "muster.fullname" .) -}}
{{- end -}}

{{- define "muster.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else -}}
{{- ternary (include "muster.fullname" .) "default" .Values.serviceAccount.create -}}
{{- end -}}
{{- end -}}

{{- define "muster.image" -}}
{{- $image := .Values.image -}}
{{- if not $image.repository -}}
{{- fail "\n\nimage.repository is empty: name an image that has the program muster, for instance\n  --set image.repository=registry.example.org/muster\n" -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "muster.cluster" -}}
{{- $name := default (printf "%s-%s" .Release.Namespace .Release.Name | replace "." "-") .Values.cluster -}}
{{- if gt (len $name) 63 -}}
{{- fail (printf "\n\nthe cluster's name in etcd, %s, has more than 63 characters: set a shorter one, for instance\n  --set cluster=jobs\n" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* The store's URL; empty where a secret holds it. */}}
{{- define "muster.state" -}}
{{- $etcd := .Values.etcd -}}
{{- if and $etcd.endpoints $etcd.urlSecret.name -}}
{{- fail "\n\netcd.endpoints and etcd.urlSecret are both given, and each says where etcd is: keep one of them\n" -}}
{{- else if $etcd.endpoints -}}
etcd://{{ join "," $etcd.endpoints }}
{{- else if not $etcd.urlSecret.name -}}
{{- fail "\n\netcd.endpoints is empty: Muster keeps everything in an etcd that you run; name its members, for instance\n  --set 'etcd.endpoints={etcd-0.etcd:2379,etcd-1.etcd:2379,etcd-2.etcd:2379}'\nor, where it asks for a password, a secret with its URL: --set etcd.urlSecret.name=NAME\n" -}}
{{- end -}}
{{- end -}}

{{/* Where clients and executors find schedulers. */}}
{{- define "muster.schedulers" -}}
{{- printf "%s.%s.svc:%d" (include "muster.fullname" .) .Release.Namespace (int .Values.schedulers.port) -}}
{{- end -}}

{{/* How others reach a process of a component, and where it listens: (list . .Values.schedulers). */}}
{{- define "muster.addresses" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $every := ternary "[::]" "0.0.0.0" $root.Values.ipv6 -}}
- --listen={{ default $every $component.listenHost }}:{{ $component.port }}
- --advertise={{ ternary "[$(POD_IP)]" "$(POD_IP)" $root.Values.ipv6 }}:{{ $component.port }}
{{- if $root.Values.metrics.enabled }}
- --metrics={{ default $every $component.listenHost }}:{{ $root.Values.metrics.port }}
{{- end }}
# There is no authentication yet: the network policy says who gets here.
- --allow-remote
{{- end -}}
