{{/* The name of everything: the release's, with the chart's where that says more. Short enough for the longest that is
     made of it: the Service of the operator's metrics. */}}
{{- define "bellows.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "bellows.operator" -}}{{ include "bellows.name" . }}-operator{{- end -}}
{{- define "bellows.etcd" -}}{{ include "bellows.name" . }}-etcd{{- end -}}

{{/* What selects pods. Call with (dict "root" . "component" "operator"). */}}
{{- define "bellows.selector" -}}
app.kubernetes.io/name: bellows
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "bellows.labels" -}}
{{ include "bellows.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: bellows
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The registry's client URLs, separated by commas. */}}
{{- define "bellows.endpoints" -}}
{{- if .Values.etcd.external.endpoints -}}
{{- join "," .Values.etcd.external.endpoints -}}
{{- else if eq (int .Values.etcd.replicas) 1 -}}
{{- printf "http://%s.%s.svc:2379" (include "bellows.etcd" .) .Release.Namespace -}}
{{- else -}}
{{- $urls := list -}}
{{- range $member := until (int .Values.etcd.replicas) -}}
{{- $urls = append $urls (printf "http://%s-%d.%s-members.%s.svc:2379" (include "bellows.etcd" $) $member (include "bellows.etcd" $) $.Release.Namespace) -}}
{{- end -}}
{{- join "," $urls -}}
{{- end -}}
{{- end -}}

{{- define "bellows.operatorImage" -}}
{{ .Values.operator.image.repository }}:{{ .Values.operator.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "bellows.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "bellows.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* The operator's environment. */}}
{{- define "bellows.operatorEnv" -}}
- name: BELLOWS_ETCD_ENDPOINTS
  value: {{ include "bellows.endpoints" . | quote }}
- name: BELLOWS_PREFIX
  value: {{ .Values.prefix | quote }}
- name: BELLOWS_WATCH_NAMESPACES
  value: {{ join "," .Values.watchNamespaces | quote }}
- name: BELLOWS_LEASE_NAME
  value: {{ include "bellows.operator" . }}
- name: BELLOWS_LOG
  value: {{ .Values.operator.log.filter | quote }}
- name: BELLOWS_LOG_FORMAT
  value: {{ .Values.operator.log.format }}
- name: POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- name: POD_NAMESPACE
  valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
{{- end -}}

{{/* What the operator may do with TaskDefinitions and what it makes of them. */}}
{{- define "bellows.rules" -}}
- apiGroups: [bellows.dev]
  resources: [taskdefinitions]
  verbs: [get, list, watch, patch]
- apiGroups: [bellows.dev]
  resources: [taskdefinitions/status]
  verbs: [patch]
- apiGroups: [bellows.dev]
  resources: [taskdefinitions/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
