{{- define "quorate.name" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "quorate.selector" -}}
app.kubernetes.io/name: quorate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "quorate.labels" -}}
{{ include "quorate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "quorate.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{/* Where a node is, by a name that stays while addresses change. */}}
{{- define "quorate.hosts" -}}
{{- $name := include "quorate.name" . -}}
{{- $hosts := list -}}
{{- range $n := until (int .Values.replicas) -}}
{{- $hosts = append $hosts (printf "%s-%d.%s-nodes.%s.svc" $name $n $name $.Release.Namespace) -}}
{{- end -}}
{{- toJson $hosts -}}
{{- end -}}

{{/* One container's bounds: the same for nodes and for the job. */}}
{{- define "quorate.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "quorate.pod-security" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* For a program that speaks to the nodes as an operator, the health check among them. */}}
{{- define "quorate.client-env" -}}
{{- if not .Values.insecure }}
- name: QUORATE_CACERT
  value: /etc/quorate/tls/ca.crt
- name: QUORATE_CERT
  value: /etc/quorate/tls/tls.crt
- name: QUORATE_KEY
  value: /etc/quorate/tls/tls.key
{{- end }}
{{- end -}}

{{- define "quorate.tls-volume" -}}
- name: tls
  secret:
    secretName: {{ .Values.tls.secretName }}
    # Readable by root and by the group of the node: a node refuses a key that others can read.
    defaultMode: 0440
{{- end -}}
