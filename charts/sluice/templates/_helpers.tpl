{{/* Labels of every object. */}}
{{- define "sluice.labels" -}}
app.kubernetes.io/name: sluice
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An image's whole name: (dict "root" $ "name" "operator"). */}}
{{- define "sluice.image" -}}
{{ required "image.registry must say where the images are: --set image.registry=REGISTRY" .root.Values.image.registry }}/sluice-{{ .name }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* How a process finds the API server before services work. */}}
{{- define "sluice.apiServer" -}}
{{- if .Values.k8sServiceHost }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .Values.k8sServiceHost | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .Values.k8sServicePort | default "6443" | quote }}
{{- end }}
{{- end }}

{{/* Where metrics and health listen. */}}
{{- define "sluice.metricsHost" -}}
{{- if .Values.metrics.hostAccess }}0.0.0.0{{ else }}127.0.0.1{{ end }}
{{- end }}

{{/* The agent's environment: the same for running and for cleaning up. */}}
{{- define "sluice.agentEnv" -}}
- {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: SLUICE_HEALTH_ADDRESS, value: "{{ include "sluice.metricsHost" . }}:{{ .Values.agent.ports.metrics }}"}
- {name: SLUICE_CNI_BIN_DIR, value: {{ .Values.agent.cni.binDir | quote }}}
- {name: SLUICE_CNI_CONF_DIR, value: {{ .Values.agent.cni.confDir | quote }}}
- {name: SLUICE_CNI_VERSION, value: {{ .Values.agent.cni.version | quote }}}
- {name: SLUICE_CONNECTIONS_PER_ENDPOINT, value: {{ .Values.agent.connectionsPerEndpoint | quote }}}
- {name: SLUICE_MAX_ENDPOINTS, value: {{ .Values.agent.maxEndpoints | quote }}}
{{- with .Values.routing.devices }}
- {name: SLUICE_DEVICES, value: {{ join "," . | quote }}}
{{- end }}
{{- if .Values.routing.mtu }}
- {name: SLUICE_MTU, value: {{ .Values.routing.mtu | quote }}}
{{- end }}
{{- if .Values.routing.throughStack }}
- {name: SLUICE_THROUGH_STACK, value: "true"}
{{- end }}
{{- if eq .Values.log.format "json" }}
- {name: SLUICE_LOG_JSON, value: "true"}
{{- end }}
- {name: RUST_LOG, value: {{ .Values.log.level | quote }}}
{{- include "sluice.apiServer" . }}
{{- end }}

{{/* What the agent sees of its node. */}}
{{- define "sluice.agentMounts" -}}
- {name: bpf, mountPath: /sys/fs/bpf, mountPropagation: Bidirectional}
- {name: run, mountPath: /run/sluice}
- {name: state, mountPath: /var/lib/sluice}
- {name: cni-bin, mountPath: {{ .Values.agent.cni.binDir }}}
- {name: cni-conf, mountPath: {{ .Values.agent.cni.confDir }}}
{{- end }}

{{- define "sluice.agentVolumes" -}}
- {name: bpf, hostPath: {path: /sys/fs/bpf, type: DirectoryOrCreate}}
- {name: run, hostPath: {path: /run/sluice, type: DirectoryOrCreate}}
- {name: state, hostPath: {path: /var/lib/sluice, type: DirectoryOrCreate}}
- {name: cni-bin, hostPath: {path: {{ .Values.agent.cni.binDir }}, type: DirectoryOrCreate}}
- {name: cni-conf, hostPath: {path: {{ .Values.agent.cni.confDir }}, type: DirectoryOrCreate}}
{{- end }}
