{{/* What the pods of both kinds have in common. */}}

{{/* The head of a pod's spec: (list . .Values.schedulers). */}}
{{- define "muster.pod" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
serviceAccountName: {{ include "muster.serviceAccount" $root }}
automountServiceAccountToken: false
# Kubernetes would set MUSTER_PORT and the like, which look like settings of ours.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $component.terminationGracePeriodSeconds }}
securityContext: {{- toYaml $root.Values.podSecurityContext | nindent 2 }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $component.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $component.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $component.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $component.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The head of a container. */}}
{{- define "muster.container" -}}
image: {{ include "muster.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [muster]
{{- end -}}

{{/* A container's open ports: (list . .Values.schedulers). */}}
{{- define "muster.ports" -}}
{{- $metrics := (index . 0).Values.metrics -}}
- {name: grpc, containerPort: {{ (index . 1).port }}}
{{- if $metrics.enabled }}
{{- if eq (int $metrics.port) (int (index . 1).port) }}
{{- fail (printf "\n\nmetrics.port is %d, which the same pods listen on already: take another one\n" (int $metrics.port)) }}
{{- end }}
- {name: metrics, containerPort: {{ $metrics.port }}}
{{- end }}
{{- end -}}

{{/* Who and where a pod is, from the downward API. */}}
{{- define "muster.environment" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: MUSTER_LOG
  value: {{ .Values.log | quote }}
{{- end -}}

{{/* Labels and annotations of a pod: (list . .Values.schedulers "scheduler"). */}}
{{- define "muster.podMetadata" -}}
{{- $component := index . 1 -}}
labels:
  {{- /* No version of the chart: a new chart alone restarts nothing. */}}
  {{- include "muster.selector" (list (index . 0) (index . 2)) | nindent 2 }}
  {{- with $component.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $component.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
