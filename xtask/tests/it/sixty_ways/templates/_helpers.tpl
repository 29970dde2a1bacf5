{{- define "said" }}<<{{ .Values.secret | toString }}>>{{ end }}
{{- define "words" }}{{ regexReplaceAll "[^a-z0-9]+" (.Values.secret | toString | lower) "-" | trunc 30 | trimAll "-" }}{{ end }}
