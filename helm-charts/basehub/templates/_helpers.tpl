{{- define "basehub.labels" -}}
app.kubernetes.io/name: basehub
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "basehub.share" -}}
{{ .Values.nfs.pv.baseShareName }}{{ .Release.Name }}
{{- end }}
