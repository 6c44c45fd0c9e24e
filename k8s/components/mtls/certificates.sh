#!/bin/sh
# Makes the certificates that this component mounts, for clusters without cert-manager, and prints them as Secrets:
#
#   sh k8s/components/mtls/certificates.sh FOLDER | kubectl apply --server-side -f -
#
# FOLDER gets the CA and all keys: keep it as you keep passwords. Run it again before DAYS (365) are over: the CA stays, the
# certificates are made anew, and processes read them without a restart. Names after FOLDER are made instead of the usual
# five: `FOLDER internal` is for a service of yours.
set -eu
folder=${1:?"say which folder keeps the CA: certificates.sh FOLDER [NAME...]"}
shift
[ $# -gt 0 ] || set -- edge auth catalog usage operator
days=${DAYS:-365}
umask 077
mkdir -p "$folder"
cd "$folder"

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

if [ ! -f ca.key ]; then
    new_key ca.key
    printf '%s\n' '[req]' 'distinguished_name = name' 'x509_extensions = ca' 'prompt = no' '[name]' 'CN = tollgate-ca' \
        '[ca]' 'basicConstraints = critical, CA:true' 'keyUsage = critical, keyCertSign, cRLSign' \
        'subjectKeyIdentifier = hash' > ca.cnf
    openssl req -x509 -new -config ca.cnf -key ca.key -days 3650 -out ca.crt
fi

for name in "$@"; do
    mkdir -p "$name"
    new_key "$name/tls.key"
    printf '%s\n' '[req]' 'distinguished_name = name' 'prompt = no' '[name]' "CN = $name" '[leaf]' \
        'basicConstraints = critical, CA:false' 'keyUsage = critical, digitalSignature' \
        'extendedKeyUsage = serverAuth, clientAuth' \
        "subjectAltName = DNS:$name, DNS:$name.tollgate, DNS:$name.tollgate.svc, DNS:$name.tollgate.svc.cluster.local" \
        > "$name/leaf.cnf"
    openssl req -new -config "$name/leaf.cnf" -key "$name/tls.key" |
        openssl x509 -req -CA ca.crt -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" -days "$days" \
            -extfile "$name/leaf.cnf" -extensions leaf -out "$name/tls.crt" 2> "$name/openssl.log" ||
        { cat "$name/openssl.log" >&2; exit 1; }
    cp ca.crt "$name/ca.crt"
    kubectl create secret generic "$name-tls" --namespace tollgate --type kubernetes.io/tls --dry-run=client --output yaml \
        --from-file "$name/tls.crt" --from-file "$name/tls.key" --from-file "$name/ca.crt"
    echo ---
done
