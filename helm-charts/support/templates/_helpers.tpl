{{- define "support.labels" -}}
app.kubernetes.io/name: support
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
