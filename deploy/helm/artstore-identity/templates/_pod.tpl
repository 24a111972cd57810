{{- /* What both kinds of pods have: the one that serves and the one that migrates. */ -}}

{{- define "artstore.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "artstore.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Settings that both need: the program refuses a database without an issuer and a key. */ -}}
{{- define "artstore.commonEnvironment" -}}
- {name: ARTSTORE_ISSUER, value: {{ required "issuer must be given: the https URL that clients know" .Values.issuer | quote }}}
- {name: ARTSTORE_ENVIRONMENT, value: {{ .Values.environment | quote }}}
- {name: ARTSTORE_DATABASE_URL_FILE, value: /run/secrets/artstore/database_url}
{{- if .Values.secrets.keyEncryptionKey.name }}
- {name: ARTSTORE_KEY_ENCRYPTION_KEY_FILE, value: /run/secrets/artstore/key_encryption_key}
{{- else if not .Values.settings.KEY_ENCRYPTION_KMS }}
{{- fail "secrets.keyEncryptionKey.name must be given, or settings.KEY_ENCRYPTION_KMS" }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- if has $name (list "ISSUER" "ENVIRONMENT" "DATABASE_URL" "DATABASE_URL_FILE" "REDIS_URL" "REDIS_URL_FILE" "KEY_ENCRYPTION_KEY" "KEY_ENCRYPTION_KEY_FILE" "GRPC_ADDRESS" "GRPC_MTLS_ADDRESS" "GATEWAY_ADDRESS" "METRICS_ADDRESS" "HEALTH_ADDRESS" "ADVERTISE_ADDRESS" "TLS_CERTIFICATE_FILE" "TLS_KEY_FILE" "MTLS_CLIENT_CA_FILE" "INSECURE_PUBLIC" "DRAIN_DELAY" "DRAIN_GRACE" "SINKS_FILE" "LOG_SETTINGS_FILE" "DATA_DIR") }}
{{- fail (printf "settings.%s is the chart's own: there is another value for it, or none is needed" $name) }}
{{- end }}
{{- if and (kindIs "float64" $value) (eq (floor $value) $value) }}
{{- $value = int64 $value }}{{- /* a whole number from a million on would be 1e+06 */}}
{{- end }}
- {name: ARTSTORE_{{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{- /* One folder with a file for each secret. Called with the context, the Secret that has the database's URL, and the one
that has Redis', where that is needed. */ -}}
{{- define "artstore.secretsVolume" -}}
{{- $values := .root.Values -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret: {name: {{ .database.name | quote }}, items: [{key: {{ .database.key | quote }}, path: database_url}]}
      {{- with $values.secrets.keyEncryptionKey }}
      {{- if .name }}
      - secret: {name: {{ .name | quote }}, items: [{key: {{ .key | quote }}, path: key_encryption_key}]}
      {{- end }}
      {{- end }}
      {{- with .redis }}
      {{- if .name }}
      - secret: {name: {{ .name | quote }}, items: [{key: {{ .key | quote }}, path: redis_url}]}
      {{- end }}
      {{- end }}
{{- end }}

{{- /* Where both go to: the names, the database, and what the values add. */ -}}
{{- define "artstore.egress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
- ports:
    - {port: {{ .Values.networkPolicy.database.port }}, protocol: TCP}
  {{- with .Values.networkPolicy.database.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- with .Values.networkPolicy.egress }}
{{ toYaml . }}
{{- end }}
{{- end }}
