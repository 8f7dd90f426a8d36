#!/usr/bin/env bash
# Installs node exporter, which serves the metrics of the machine on port 9100. The security group admits only the load balancer.
# usage: install-node-exporter.sh UNIT
#   UNIT   a service whose state is among the metrics
source "$(dirname "$0")/prelude.sh"
unit=$1
options=prometheus-node-exporter.service.d/options.conf

add_unit_file "$options" <<END
[Service]
ExecStart=
ExecStart=/usr/bin/prometheus-node-exporter --collector.systemd --collector.systemd.unit-include=${unit//./[.]}
END
install_packages prometheus-node-exporter
start_units prometheus-node-exporter
# It may run with other options.
systemctl restart prometheus-node-exporter
save_record <<END
package prometheus-node-exporter
unit prometheus-node-exporter.service
file /etc/systemd/system/$options
END
echo "node exporter serves the metrics of this machine"
