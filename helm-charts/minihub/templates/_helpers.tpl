{{/* Labels of everything; `component` is set beside them, and is what `exec debug component-logs` selects by. */}}
{{- define "minihub.labels" -}}
app: jupyterhub
release: {{ .Release.Name }}
chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Labels that never change, for selectors. */}}
{{- define "minihub.selector" -}}
app: jupyterhub
release: {{ .Release.Name }}
{{- end }}

{{- define "minihub.image" -}}
{{ .Values.image.name }}:{{ .Values.image.tag }}
{{- end }}

{{/*
A value of the Secret `hub`: what the values give, else what the cluster's Secret holds already, else a new one.
Takes a list: the root context, the Secret's key, the given value.
*/}}
{{- define "minihub.kept" -}}
{{- $root := index . 0 -}}
{{- $key := index . 1 -}}
{{- $given := index . 2 -}}
{{- $live := (lookup "v1" "Secret" $root.Release.Namespace "hub").data | default dict -}}
{{- if $given -}}
{{ $given }}
{{- else if hasKey $live $key -}}
{{ index $live $key | b64dec }}
{{- else -}}
{{ randAlphaNum 64 | sha256sum }}
{{- end -}}
{{- end }}

{{/* A pod that isn't root and asks for nothing of the kernel. */}}
{{- define "minihub.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "minihub.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
{{- end }}
